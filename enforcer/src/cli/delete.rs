//! `delete`: objects by name.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{
    Failure, input, out,
    place::{DryRun, PlaceArgs, Scope, find, key_of},
    show, wait,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// KIND/NAME alone
    Name,
}

#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// KIND NAME… or KIND/NAME…
    #[arg(required = true, value_name = "KIND NAME…", add = super::completions::objects())]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// Say nothing of what is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Say what would be deleted, and delete nothing; `server`: after the API server has been asked
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none", hide_possible_values = true, hide_default_value = true, value_name = "client|server")]
    dry_run: DryRun,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    #[command(flatten)]
    wait: wait::WaitArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

pub fn run(args: &DeleteArgs) -> anyhow::Result<ExitCode> {
    let targets = input::targets(&args.what).map_err(Failure::usage)?;
    let named = targets.iter().map(|target| target.name.as_ref().map(|name| (target.kind, name)));
    let Some(named) = named.collect::<Option<Vec<_>>>() else {
        return Err(Failure::usage("which one? Expected KIND NAME… or KIND/NAME…".to_owned()).into());
    };
    let place = args.place.choose()?;
    let mut gone = Vec::new();
    let mut missing = false;
    for (kind, name) in named {
        let objects = match find(&*place, kind, name, &args.scope)? {
            Ok(objects) => objects,
            Err(_) if args.ignore_not_found => continue,
            Err(absence) => {
                out::note(&format!("enforcer: {absence}"));
                missing = true;
                continue;
            }
        };
        // One name means one object, as long as nobody said that all are meant.
        if let [_, _, ..] = objects.as_slice()
            && !args.scope.all
        {
            let projects: Vec<_> =
                objects.iter().map(|object| show::text(&object["metadata"]["namespace"])).collect();
            anyhow::bail!(
                "{kind} {name} is in projects {}: say which with -n, or -A",
                projects.join(" and ")
            );
        }
        for object in &objects {
            let key = key_of(object)?;
            let remark = match args.dry_run {
                DryRun::None => place.delete(&key)?,
                DryRun::Client => " (dry run)".to_owned(),
                DryRun::Server => {
                    place.try_delete(&key)?;
                    " (server dry run)".to_owned()
                }
            };
            out::data(&match args.output {
                Some(Format::Name) => show::title(object) + "\n",
                None => format!("{} deleted{remark}\n", show::title(object)),
            })?;
            gone.push(key);
        }
    }
    for key in gone.iter().filter(|_| args.wait.wait && args.dry_run == DryRun::None) {
        let code = wait::until_gone(&*place, key, args.wait.timeout);
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(if missing { Failure::NotFound.code() } else { ExitCode::SUCCESS })
}
