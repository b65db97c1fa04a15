//! `authorizer.group("apps").resource("deployments").check("get").allowed()`.

use regex::Regex;

use super::format;
use crate::EvalError;
use crate::authorizer::{AuthorizationCheck, CheckTarget, ResourceCheck};
use crate::functions::{Answer, Cost, Row, refuse, text};
use crate::value::{Asking, AskingStage, OpaqueVal, Val};

macro_rules! attribute {
    ($name:literal, $id:literal, $cost:expr, $code:ident, $field:ident) => {{
        fn $code<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
            let value = text(args, 1)?.to_owned();
            with_resource(args, |check| check.$field = value)
        }
        Row {
            name: $name,
            cost: $cost,
            code: $code,
            overloads: &[concat!(".", $id, " (resourcecheck, string) -> resourcecheck")],
        }
    }};
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "path",
        cost: Cost::One,
        code: path,
        overloads: &[".authorizer_path (authorizer, string) -> pathcheck"],
    },
    Row {
        name: "group",
        cost: Cost::One,
        code: group,
        overloads: &[".authorizer_group (authorizer, string) -> groupcheck"],
    },
    Row {
        name: "serviceAccount",
        cost: Cost::One,
        code: service_account,
        overloads: &[".authorizer_serviceaccount (authorizer, string, string) -> authorizer"],
    },
    Row {
        name: "resource",
        cost: Cost::One,
        code: resource,
        overloads: &[".groupcheck_resource (groupcheck, string) -> resourcecheck"],
    },
    attribute!("subresource", "resourcecheck_subresource", Cost::One, subresource, subresource),
    attribute!("namespace", "resourcecheck_namespace", Cost::One, namespace, namespace),
    attribute!("name", "resourcecheck_name", Cost::One, name, name),
    attribute!("fieldSelector", "authorizer_fieldselector", Cost::Selector, field_selector, field_selector),
    attribute!("labelSelector", "authorizer_labelselector", Cost::Selector, label_selector, label_selector),
    Row {
        name: "check",
        cost: Cost::Check,
        code: check,
        overloads: &[
            ".pathcheck_check (pathcheck, string) -> decision",
            ".resourcecheck_check (resourcecheck, string) -> decision",
        ],
    },
    Row { name: "errored", cost: Cost::One, code: errored, overloads: &[".decision_errored (decision) -> bool"] },
    Row { name: "error", cost: Cost::One, code: error, overloads: &[".decision_error (decision) -> string"] },
    Row { name: "allowed", cost: Cost::One, code: allowed, overloads: &[".decision_allowed (decision) -> bool"] },
    Row { name: "reason", cost: Cost::One, code: reason, overloads: &[".decision_reason (decision) -> string"] },
];

fn asking<'a>(args: &[Val<'a>]) -> Result<Asking<'a>, EvalError> {
    match args.first() {
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Authorizer(asking) => Ok(asking.clone()),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn staged<'a>(mut asking: Asking<'a>, stage: AskingStage) -> Answer<'a> {
    asking.stage = stage;
    Ok(Val::from(OpaqueVal::Authorizer(asking)))
}

fn path<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let path = text(args, 1)?;
    if path.trim().is_empty() {
        return refuse("path must not be empty");
    }
    match asking(args)? {
        a if a.stage == AskingStage::Nothing => staged(a, AskingStage::Path(path.to_owned())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn group<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    match asking(args)? {
        a if a.stage == AskingStage::Nothing => staged(a, AskingStage::Group(text(args, 1)?.to_owned())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn service_account<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    if !format::is_dns_subdomain(name) {
        return refuse("Invalid service account name");
    }
    if !format::is_dns_label(namespace) {
        return refuse("Invalid service account namespace");
    }
    let mut asking = asking(args)?;
    asking.service_account = Some((namespace.to_owned(), name.to_owned()));
    staged(asking, AskingStage::Nothing)
}

fn resource<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let resource = text(args, 1)?;
    if resource.trim().is_empty() {
        return refuse("resource must not be empty");
    }
    let asking = asking(args)?;
    let AskingStage::Group(group) = asking.stage.clone() else { return Err(EvalError::NoSuchOverload) };
    let check = ResourceCheck { group, version: "*".into(), resource: resource.to_owned(), ..ResourceCheck::default() };
    staged(asking, AskingStage::Resource(check))
}

fn with_resource<'a>(args: &[Val<'a>], change: impl FnOnce(&mut ResourceCheck)) -> Answer<'a> {
    let mut asking = asking(args)?;
    let AskingStage::Resource(check) = &mut asking.stage else { return Err(EvalError::NoSuchOverload) };
    change(check);
    Ok(Val::from(OpaqueVal::Authorizer(asking)))
}

fn check<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    let asking = asking(args)?;
    let target = match asking.stage {
        AskingStage::Path(path) => CheckTarget::Path(path),
        AskingStage::Resource(mut check) => {
            // An expression cannot say a version.
            check.version = "*".into();
            CheckTarget::Resource(check)
        }
        _ => return Err(EvalError::NoSuchOverload),
    };
    let check = AuthorizationCheck { service_account: asking.service_account, verb: text(args, 1)?.to_owned(), target };
    Ok(Val::from(OpaqueVal::Decision(asking.hook.authorize(&check))))
}

fn decided<'a>(args: &[Val<'a>], part: impl FnOnce(&crate::AuthorizationDecision) -> Val<'a>) -> Answer<'a> {
    match args.first() {
        Some(Val::Opaque(o)) => match &**o {
            OpaqueVal::Decision(decision) => Ok(part(decision)),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn errored<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    decided(args, |d| Val::Bool(d.error.is_some()))
}

fn error<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    decided(args, |d| Val::from(d.error.clone().unwrap_or_default()))
}

fn allowed<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    decided(args, |d| Val::Bool(d.allowed))
}

fn reason<'a>(args: &mut [Val<'a>], _: Option<&Regex>) -> Answer<'a> {
    decided(args, |d| Val::from(d.reason.clone()))
}
