//! Sets of completion indexes and their text, `0-2,5`.

use std::collections::BTreeSet;

use ironkeel_informer::controller_of;
use k8s_openapi::api::core::v1::Pod;

/// Annotation and label of an indexed Job's pods.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The index of a pod.
pub(super) fn of_pod(pod: &Pod) -> Option<i32> {
    controller_of(&pod.metadata)?;
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// Reads a set; what does not parse, or is not below `completions`, is left out.
pub(super) fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
            set.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    set
}

/// Writes a set: runs of three and more with a dash.
pub(super) fn format(set: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in set {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_indexes_have_a_short_text() {
        let set = BTreeSet::from([0, 1, 2, 4, 6, 7]);
        assert_eq!(format(&set), "0-2,4,6,7");
        assert_eq!(parse("0-2,4,6,7", 10), set);
        assert_eq!(parse("0-2,4", 2), BTreeSet::from([0, 1]));
        assert!(parse("", 5).is_empty());
    }
}
