//! Measures classification and a free seat, one request after another: nanoseconds a request.
#![allow(clippy::print_stdout, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironkeel_auth::UserInfo;
use ironkeel_fairness::{Controller, Digest, Width, mandatory, suggested};
use ironkeel_object::Value;

const REQUESTS: u32 = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let controller = Controller::new(600);
    let objects: Vec<Arc<Value>> = mandatory().into_iter().chain(suggested()).map(Arc::new).collect();
    let (levels, schemas): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|o| o["kind"].as_str() == Some("PriorityLevelConfiguration"));
    controller.digest(&schemas, &levels);
    let users = [
        UserInfo::new("admin", ["system:masters"]),
        UserInfo::new("system:node:a", ["system:nodes"]),
        UserInfo::new("somebody", Vec::<String>::new()),
    ];
    for user in &users {
        let request = Digest {
            user,
            verb: "get",
            is_resource: true,
            group: "",
            resource: "configmaps",
            subresource: "",
            namespace: "default",
            name: "a",
            path: "",
        };
        let mut classifying = Duration::ZERO;
        let started = Instant::now();
        for _ in 0..REQUESTS {
            drop(controller.classify(&request));
        }
        classifying += started.elapsed();
        let started = Instant::now();
        for _ in 0..REQUESTS {
            let Some(classified) = controller.classify(&request) else { return };
            drop(controller.enter(&classified, &request, Width::ONE, None, Duration::from_secs(1)).await);
        }
        let all = started.elapsed();
        println!("{}: classify {:?}, in all {:?} a request", user.name, classifying / REQUESTS, all / REQUESTS);
    }
}
