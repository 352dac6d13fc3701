//! `copy`: one image by hand, without rules.

use std::path::PathBuf;

use clap::Args;

use super::client::read_secret;
use super::context::Context;
use super::exit::{Exit, Stop, StrictArg};
use super::output::{Format, FormatArg};
use super::place::{Place, Target};
use super::progress::Progress;
use super::report::{self, Showing};
use super::signals::Signals;
use crate::engine::{self, ControlHandle, CopyEnd, CopyRequest, Events, SCHEMA_VERSION, SyncReport};
use crate::oci::PlatformSelector;
use crate::registry::{Credentials, LoginSource, RegistrySettings, RegistryUrl, RemoteSettings, TlsSettings};
use crate::rules::{Attestations, PlatformPolicy};
use crate::store::Store;
use crate::telemetry::Secret;

/// Copy one image from one registry or directory to another; needs no rules
///
/// An end is HOST/REPOSITORY[:TAG|@DIGEST], a short name of Docker Hub (alpine:3), or oci:DIR[:TAG] for an OCI image layout
/// directory. Without a tag the source is `latest`, or the only image of a directory, and the destination takes the source's.
/// All platforms are copied unless --platform is given. Credentials come from docker's configuration or from files, never from the command line.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transship copy alpine:3 harbor.example/mirror/alpine\n  \
transship copy harbor.example/app/web:1.4 oci:./bundle\n  \
transship copy --all-tags http://127.0.0.1:5000/app harbor.example/app --dst-creds-file ~/.harbor-login")]
pub(super) struct Copy {
    /// From where
    #[arg(value_name = "SRC")]
    source: String,
    /// To where
    #[arg(value_name = "DST")]
    destination: String,
    /// Every tag of the repository
    #[arg(long)]
    all_tags: bool,
    /// Only this platform, such as linux/arm64; may be given again
    #[arg(long = "platform", value_name = "OS/ARCH[/VARIANT]")]
    platforms: Vec<PlatformSelector>,
    /// BuildKit's attestations, which some registries refuse: copy them or take them out of the image's index
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    attestations: AttestationsArg,
    #[command(flatten)]
    from: SourceArgs,
    #[command(flatten)]
    to: DestinationArgs,
    #[command(flatten)]
    strict: StrictArg,
    #[command(flatten)]
    format: FormatArg,
}

/// `--attestations`, as `attestations:` of a rule.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum AttestationsArg {
    #[default]
    Keep,
    Strip,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
struct SourceArgs {
    /// A file that holds user:password
    #[arg(long, value_name = "FILE")]
    src_creds_file: Option<PathBuf>,
    /// A file with certificates (PEM) to trust beside the system's
    #[arg(long, value_name = "FILE")]
    src_ca_file: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    src_tls_skip_verify: bool,
    /// Speak plain http
    #[arg(long)]
    src_plain_http: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Destination")]
struct DestinationArgs {
    /// A file that holds user:password
    #[arg(long, value_name = "FILE")]
    dst_creds_file: Option<PathBuf>,
    /// A file with certificates (PEM) to trust beside the system's
    #[arg(long, value_name = "FILE")]
    dst_ca_file: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    dst_tls_skip_verify: bool,
    /// Speak plain http
    #[arg(long)]
    dst_plain_http: bool,
}

/// How to reach an end, apart from where it is.
#[derive(Debug)]
struct Access {
    /// `src` or `dst`, as in the options' names.
    side: &'static str,
    creds_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    skip_verify: bool,
    plain_http: bool,
}

impl Copy {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Stop> {
        let format = self.format.format;
        let strict = self.strict;
        let request = self.request()?;
        let state = engine::copy_state(&context.state_place()?.path);
        let store = Store::open_among_others(&state, "copy").await?;
        let mut signals = Signals::listen()?;
        let (handle, control) = ControlHandle::new();
        let events = Events::default();
        let mut progress = Progress::new(&context.output, context.verbose()).worded(worded);
        let mut listening = events.listen();
        let work = Box::pin(engine::copy(
            request,
            store.clone(),
            context.clock.clone(),
            control,
            events,
        ));
        let beside = async {
            tokio::select! {
                done = work => done,
                done = async { progress.follow(&mut listening).await; std::future::pending().await } => done,
            }
        };
        let (done, signal) = Box::pin(signals.guard(&context.output, std::slice::from_ref(&handle), beside)).await;
        let told = progress.finish(&mut listening);
        store.close().await;
        let stopped = signal.map_or(Exit::Fine, Exit::Stopped);
        let Some(mut report) = done.transpose()? else {
            return Ok(stopped);
        };
        let exit = stopped.worse(Exit::of_run(&report, strict));
        for failure in &mut report.failures {
            failure.message = worded(std::mem::take(&mut failure.message));
        }
        match format {
            Format::Text => {
                let showing = Showing {
                    told,
                    without_ids: true,
                };
                context.output.line(report::shown(&report, &showing)?)?;
            }
            Format::Json => context.output.json(&SyncReport {
                schema_version: SCHEMA_VERSION,
                runs: vec![report],
            })?,
        }
        Ok(exit)
    }

    fn request(self) -> Result<CopyRequest, Stop> {
        // Not by clap, which shows a value that it refuses: somebody may have written a password into it.
        let parse = |end: &str, text: &str| {
            Place::parse(text).map_err(|problem| Stop::unusable(format!("{end} cannot be used: {problem}")))
        };
        let (source, destination) = (parse("SRC", &self.source)?, parse("DST", &self.destination)?);
        if self.all_tags && (source.reference.is_some() || destination.reference.is_some()) {
            return Err(Stop::unusable(
                "--all-tags copies a whole repository: leave tag and digest out of both ends",
            ));
        }
        if source == destination {
            return Err(Stop::unusable("source and destination are the same"));
        }
        let from = Access {
            side: "src",
            creds_file: self.from.src_creds_file,
            ca_file: self.from.src_ca_file,
            skip_verify: self.from.src_tls_skip_verify,
            plain_http: self.from.src_plain_http,
        };
        let to = Access {
            side: "dst",
            creds_file: self.to.dst_creds_file,
            ca_file: self.to.dst_ca_file,
            skip_verify: self.to.dst_tls_skip_verify,
            plain_http: self.to.dst_plain_http,
        };
        Ok(CopyRequest {
            source: end(source, from)?,
            destination: end(destination, to)?,
            all_tags: self.all_tags,
            platforms: PlatformPolicy {
                platforms: self.platforms,
                attestations: match self.attestations {
                    AttestationsArg::Keep => Attestations::Keep,
                    AttestationsArg::Strip => Attestations::Strip,
                },
            },
        })
    }
}

/// The message of a failure with what a command without rules can do where the message names keys of theirs.
fn worded(mut message: String) -> String {
    if message.contains("`username` and `password`") {
        message.push_str(" (for copy: --src-creds-file/--dst-creds-file, or docker login)");
    }
    if message.contains("`attestations: strip`") {
        message.push_str(" (for copy: --attestations strip)");
    }
    message
}

fn end(place: Place, access: Access) -> Result<CopyEnd, Stop> {
    let name = place.name();
    let settings = match place.target {
        Target::Layout(path) => {
            if let Some(option) = access.first_option() {
                return Err(Stop::unusable(format!(
                    "--{}-{option} does not fit {name}, which is a directory",
                    access.side
                )));
            }
            RegistrySettings::Layout { path }
        }
        Target::Registry { host, plain_http } => {
            let login = match &access.creds_file {
                Some(path) => LoginSource::Given(credentials(path)?),
                None => LoginSource::DockerConfig,
            };
            RegistrySettings::Remote(Box::new(RemoteSettings {
                url: RegistryUrl {
                    plain_http: plain_http || access.plain_http,
                    host,
                    path: String::new(),
                },
                login,
                tls: TlsSettings {
                    ca_file: access.ca_file,
                    insecure_skip_verify: access.skip_verify,
                    ..TlsSettings::default()
                },
                ..RemoteSettings::default()
            }))
        }
    };
    Ok(CopyEnd {
        name,
        settings,
        repository: place.repository,
        reference: place.reference,
    })
}

impl Access {
    fn first_option(&self) -> Option<&'static str> {
        let given = [
            (self.creds_file.is_some(), "creds-file"),
            (self.ca_file.is_some(), "ca-file"),
            (self.skip_verify, "tls-skip-verify"),
            (self.plain_http, "plain-http"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, option)| option)
    }
}

fn credentials(path: &std::path::Path) -> Result<Credentials, Stop> {
    let text = read_secret(path, "login")?;
    match text.split_once(':') {
        Some((username, password)) if !username.is_empty() && !password.contains('\n') => Ok(Credentials {
            username: username.to_owned(),
            password: Secret::new(password),
        }),
        _ => Err(Stop::unusable(format!(
            "the file {} must hold one line, user:password",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(creds_file: Option<PathBuf>) -> Access {
        Access {
            side: "dst",
            creds_file,
            ca_file: None,
            skip_verify: false,
            plain_http: true,
        }
    }

    #[test]
    fn logins_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login");
        std::fs::write(&path, "robot$x:pa:ss\n").unwrap();
        let place = Place::parse("h.example/a:1").unwrap();
        let made = end(place.clone(), access(Some(path.clone()))).unwrap();
        let RegistrySettings::Remote(settings) = made.settings else {
            panic!("not a registry");
        };
        let (url, LoginSource::Given(login)) = (settings.url, settings.login) else {
            panic!("not a registry with a login");
        };
        assert!(url.plain_http);
        assert_eq!((login.username.as_str(), login.password.expose()), ("robot$x", "pa:ss"));
        for bad in ["", "nocolon", ":nouser", "a:b\nc:d"] {
            std::fs::write(&path, bad).unwrap();
            let stop = end(place.clone(), access(Some(path.clone()))).unwrap_err();
            assert_eq!(stop.exit, Exit::Unusable);
            assert!(bad.is_empty() || !stop.message.contains(bad), "{}", stop.message);
        }
    }

    #[test]
    fn a_directory_takes_no_options_of_registries() {
        let stop = end(Place::parse("oci:dir").unwrap(), access(None)).unwrap_err();
        assert!(stop.message.contains("--dst-plain-http"), "{}", stop.message);
    }
}
