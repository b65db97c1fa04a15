//! Paths of a volume that hide each other.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use ironkeel_object::Value;

use super::list::Warnings;
use crate::pod_spec::present;

/// How much of two paths is compared at once, in bytes.
const COMPARED_BYTES: usize = 256;

/// A path of a volume, and who puts something there (empty where that is plain).
struct Placed<'v> {
    path: &'v str,
    source: Rc<str>,
}

impl<'v> Placed<'v> {
    fn new(path: &'v str, source: &Rc<str>) -> Self {
        Placed { path: path.trim_end_matches('/'), source: source.clone() }
    }

    /// Whether it lies within a directory.
    fn is_below(&self, directory: &Placed<'_>) -> bool {
        self.path.strip_prefix(directory.path).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Orders paths so that what lies within a directory follows it at once: a slash comes before all else.
    fn cmp(&self, other: &Placed<'_>) -> Ordering {
        let (a, b) = (self.path.as_bytes(), other.path.as_bytes());
        let same = a.chunks(COMPARED_BYTES).zip(b.chunks(COMPARED_BYTES)).take_while(|(a, b)| a == b).count();
        fn rest(path: &[u8], from: usize) -> impl Iterator<Item = (bool, u8)> {
            path.get(from..).unwrap_or_default().iter().map(|byte| (*byte != b'/', *byte))
        }
        rest(a, same * COMPARED_BYTES).cmp(rest(b, same * COMPARED_BYTES))
    }
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.path)?;
        if self.source.is_empty() { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

/// What is above and below each path of a volume. The paths are sorted once and known by their rank from then on:
/// looking up each directory of each path would take time by the square of a path's length.
struct Tree {
    /// Each path's rank; equal ones share it, and empty ones have none.
    ranks: Vec<Option<usize>>,
    /// The directory in which a rank lies.
    above: Vec<Option<usize>>,
    /// The first rank that does not lie below one.
    end: Vec<usize>,
    /// The paths that were placed until now, by rank.
    placed: BTreeMap<usize, Vec<usize>>,
}

impl Tree {
    fn of(paths: &[Placed<'_>]) -> Self {
        let mut order: Vec<usize> = (0..paths.len()).filter(|i| !paths[*i].path.is_empty()).collect();
        order.sort_by(|a, b| paths[*a].cmp(&paths[*b]));
        let mut tree =
            Tree { ranks: vec![None; paths.len()], above: Vec::new(), end: Vec::new(), placed: BTreeMap::new() };
        // The ranks whose ends are not known yet, each with its path.
        let mut open: Vec<(usize, usize)> = Vec::new();
        for i in order {
            if let Some((rank, same)) = open.last()
                && paths[*same].path == paths[i].path
            {
                tree.ranks[i] = Some(*rank);
                continue;
            }
            let rank = tree.above.len();
            while let Some((before, _)) = open.pop_if(|(_, directory)| !paths[i].is_below(&paths[*directory])) {
                tree.end[before] = rank;
            }
            tree.above.push(open.last().map(|(directory, _)| *directory));
            tree.end.push(usize::MAX);
            tree.ranks[i] = Some(rank);
            open.push((rank, i));
        }
        tree
    }

    /// Adds a path; answers the earlier ones that it hides or is hidden by.
    fn place(&mut self, i: usize) -> Vec<usize> {
        let Some(rank) = self.ranks[i] else { return Vec::new() };
        let above = std::iter::successors(Some(rank), |rank| self.above[*rank]);
        let mut met: Vec<usize> = above.filter_map(|rank| self.placed.get(&rank)).flatten().copied().collect();
        met.extend(self.placed.range(rank + 1..self.end[rank]).flat_map(|(_, at)| at));
        met.sort_unstable();
        self.placed.entry(rank).or_default().push(i);
        met
    }
}

/// Paths in one volume that hide each other.
pub(super) fn overlaps(v: &Value, w: &mut Warnings) {
    let name = v.str_at(&["name"]).unwrap_or_default();
    let source = |kind: &str, field: &str, word: &str| {
        format!("{word} \"{}\"", v.at(&[kind, field]).and_then(Value::as_str).unwrap_or_default())
    };
    let plain = Rc::from("");
    for (kind, description) in [
        ("configMap", source("configMap", "name", "ConfigMap")),
        ("secret", source("secret", "secretName", "Secret")),
        ("downwardAPI", "DownwardAPI".to_owned()),
    ] {
        let items = v.items_at(&[kind, "items"]).iter();
        let paths: Vec<_> = items.map(|i| Placed::new(i.str_at(&["path"]).unwrap_or_default(), &plain)).collect();
        tell(&mut Tree::of(&paths), &paths, 0..paths.len(), &format_args!("volume \"{name}\" ({description})"), w);
    }
    let sources: Vec<_> = v.items_at(&["projected", "sources"]).iter().map(projected).collect();
    let lengths: Vec<_> = sources.iter().map(|source| source.as_ref().map(Vec::len)).collect();
    let paths: Vec<_> = sources.into_iter().flatten().flatten().collect();
    let (mut tree, mut begun) = (Tree::of(&paths), 0);
    for length in lengths {
        match length {
            None => w.push(format_args!("volume \"{name}\" (Projected) has no sources provided")),
            Some(length) => {
                let of_source = begun..begun + length;
                begun = of_source.end;
                tell(&mut tree, &paths, of_source, &format_args!("volume \"{name}\" (Projected)"), w);
            }
        }
    }
}

/// Tells of those among the paths that meet earlier ones.
fn tell(
    tree: &mut Tree,
    paths: &[Placed<'_>],
    among: std::ops::Range<usize>,
    volume: &fmt::Arguments<'_>,
    w: &mut Warnings,
) {
    for i in among {
        if w.is_full() {
            return;
        }
        for other in tree.place(i) {
            w.push(format_args!("{volume}: overlapping paths: {} with {}", paths[i], paths[other]));
        }
    }
}

/// The paths of one source of a projected volume; `None` of one that is empty.
fn projected(s: &Value) -> Option<Vec<Placed<'_>>> {
    if s.as_object().is_none_or(|m| m.values().all(Value::is_null)) {
        return None;
    }
    let text = |path: &[&str]| s.str_at(path).unwrap_or_default();
    for (kind, word) in [("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "DownwardAPI")] {
        if s.at(&[kind, "items"]).is_some_and(|v| !v.is_null()) {
            let of: Rc<str> = if kind == "downwardAPI" {
                word.into()
            } else {
                format!("{word} \"{}\"", text(&[kind, "name"])).into()
            };
            let items = s.items_at(&[kind, "items"]).iter();
            return Some(items.map(|i| Placed::new(i.str_at(&["path"]).unwrap_or_default(), &of)).collect());
        }
    }
    if present(s, "serviceAccountToken").is_some() {
        return Some(vec![Placed::new(text(&["serviceAccountToken", "path"]), &"ServiceAccountToken".into())]);
    }
    if let Some(bundle) = present(s, "clusterTrustBundle") {
        let name = bundle.str_at(&["name"]).or_else(|| bundle.str_at(&["signerName"])).unwrap_or_default();
        let of = format!("ClusterTrustBundle \"{name}\"").into();
        return Some(vec![Placed::new(text(&["clusterTrustBundle", "path"]), &of)]);
    }
    let files = [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
    let files = files.map(|(field, word)| (text(&["podCertificate", field]), format!("PodCertificate {word}").into()));
    Some(files.iter().filter(|(path, _)| !path.is_empty()).map(|(path, of)| Placed::new(path, of)).collect())
}
