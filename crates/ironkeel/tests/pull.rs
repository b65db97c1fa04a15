//! Pulls from a real registry: without and with a user, by digest, and what a user reads when it fails.
#![allow(clippy::unwrap_used)]

use ironkeel_testkit::registry::{PASSWORD, Registry, USER};
use ironkeel_testkit::run::{LONG, eventually};
use ironkeel_testkit::tools::{self, Tool, can_run};
use ironkeel_testkit::{Checks, Cluster, Options, Outcome, expect, expect_words, must};

#[test]
fn pods_pull_from_a_registry() {
    if !can_run("pull", &[Tool::Kubectl, Tool::Registry]) {
        return;
    }
    // The mirror's port is the public registry's; no packet leaves this host.
    let flags = vec!["--registry-mirror".to_owned(), "mirrored.invalid=127.0.0.1:5000".to_owned()];
    let options = Options { images: false, flags, ..Options::new(env!("CARGO_BIN_EXE_ironkeel")) };
    let cluster = must("a cluster", Cluster::start(options));
    let public = must("a registry", Registry::start(cluster.namespace(), 5000, false));
    let private = must("a private registry", Registry::start(cluster.namespace(), 5001, true));
    let archives = must("images", tools::images());
    let archive = |name: &str| archives.iter().find(|p| p.ends_with(name)).cloned().unwrap_or_default();
    let digest = must("a push", public.push(&archive("busybox-1.tar"), "library/busybox", "1"));
    must("a push", public.push(&archive("guestbook-1.tar"), "team/guestbook", "1"));
    must("a push", private.push(&archive("busybox-1.tar"), "team/secret", "1"));

    let puller = Puller { cluster: &cluster };
    let mut checks = Checks::new("pull");
    checks.check("by tag, with events", || {
        let image = public.image("library/busybox:1");
        puller.runs("by-tag", &image, &[])?;
        let pulled = format!("Successfully pulled image \"{image}\" in ");
        puller.described("by-tag", &["Pulling image", &pulled, "Image size:", &digest])
    });
    checks.check("an image that is here already", || {
        puller.runs("again", &public.image("library/busybox:1"), &[])?;
        puller.described("again", &["already present on machine"])
    });
    checks.check("imagePullPolicy Always asks the registry again", || {
        puller.runs("always", &public.image("library/busybox:1"), &["--image-pull-policy=Always"])?;
        puller.described("always", &["Successfully pulled image"])
    });
    checks.check("by digest", || {
        puller.runs("by-digest", &public.image(&format!("library/busybox@{digest}")), &[])?;
        let id = cluster.field("pod by-digest", ".status.containerStatuses[0].imageID")?;
        expect("the image's id in the status", &digest, &id, id.contains(&digest))
    });
    checks.check("from a mirror", || puller.runs("mirrored", "mirrored.invalid/library/busybox:1", &[]));
    checks.check("`image pull`, `image ls`, `image rm`", || {
        let image = public.image("team/guestbook:1");
        cluster.ironkeel(&["image", "pull", &image])?.says(&["pulled"])?;
        cluster.ironkeel(&["image", "ls"])?.says(&[&image])?;
        cluster.ironkeel(&["image", "rm", &image])?.says(&["removed"])?;
        let left = cluster.ironkeel(&["image", "ls"])?.ok()?;
        expect("the list", "without the removed image", &left, !left.contains(&image))
    });
    checks.check("a tag that the registry lacks", || {
        let image = public.image("library/busybox:no-such-tag");
        puller.fails("no-tag", &image, &[], &["ErrImagePull", "ImagePullBackOff", "manifest unknown"])
    });
    checks.check("a private image without a secret", || {
        let image = private.image("team/secret:1");
        puller.fails("no-secret", &image, &[], &["ErrImagePull", "ImagePullBackOff"])?;
        let said = cluster.kubectl(&["describe", "pod", "no-secret"])?.ok()?.to_lowercase();
        expect(
            "the registry's words",
            "unauthorized",
            &said,
            said.contains("authoriz") || said.contains("authentication required"),
        )
    });
    let secret = |name: &str, password: &str| -> Outcome {
        let (server, user) = (format!("--docker-server={}", private.image("")), format!("--docker-username={USER}"));
        let (server, password) = (server.trim_end_matches('/'), format!("--docker-password={password}"));
        cluster.kubectl(&["create", "secret", "docker-registry", name, server, &user, &password])?.done()
    };
    checks.check("a private image with a wrong password", || {
        secret("wrong", "guess")?;
        let image = private.image("team/secret:1");
        puller.fails("wrong", &image, &[&overrides("wrong")], &["ErrImagePull", "ImagePullBackOff"])
    });
    checks.check("a private image with its secret", || {
        secret("right", PASSWORD)?;
        puller.runs("right", &private.image("team/secret:1"), &[&overrides("right")])
    });
    checks.check("a private image with the service account's secret", || {
        let patch = r#"{"imagePullSecrets":[{"name":"right"}]}"#;
        cluster.kubectl(&["patch", "serviceaccount", "default", "-p", patch])?.done()?;
        puller.runs("account", &private.image("team/secret:1"), &["--image-pull-policy=Always"])
    });
    checks.check("the password is in no log", || {
        let log = cluster.log();
        expect("the log", "without the password", &log, !log.contains(PASSWORD))
    });
    checks.finish();
}

fn overrides(secret: &str) -> String {
    format!(r#"--overrides={{"apiVersion":"v1","spec":{{"imagePullSecrets":[{{"name":"{secret}"}}]}}}}"#)
}

struct Puller<'a> {
    cluster: &'a Cluster,
}

impl Puller<'_> {
    fn run(&self, pod: &str, image: &str, flags: &[&str]) -> Outcome {
        let image = format!("--image={image}");
        let args = [&["run", pod, "--restart=Never", &image], flags, &["--command", "--", "sleep", "1000"]].concat();
        self.cluster.kubectl(&args)?.done()
    }

    fn runs(&self, pod: &str, image: &str, flags: &[&str]) -> Outcome {
        self.run(pod, image, flags)?;
        let waited = ["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=30s"];
        self.cluster.kubectl(&waited)?.done()
    }

    /// Events follow what they tell of by a moment.
    fn described(&self, pod: &str, words: &[&str]) -> Outcome {
        eventually("the events", LONG, || {
            let said = self.cluster.kubectl(&["describe", "pod", pod])?.ok()?;
            expect_words("the events", &said, words)
        })
    }

    fn fails(&self, pod: &str, image: &str, flags: &[&str], words: &[&str]) -> Outcome {
        self.run(pod, image, flags)?;
        self.described(pod, words)
    }
}
