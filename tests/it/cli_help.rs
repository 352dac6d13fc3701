//! What `--help` says: a golden text, so that a change is seen by whoever makes it.

use clap::Command;

/// Every command's long help at a fixed width.
fn help(command: &mut Command, path: &str, text: &mut String) {
    let path = if path.is_empty() {
        command.get_name().to_owned()
    } else {
        format!("{path} {}", command.get_name())
    };
    let shown = command.clone().term_width(110).bin_name(&path).render_long_help();
    text.push_str(&format!("=== {path} --help\n{shown}\n"));
    for child in command.get_subcommands_mut() {
        if child.get_name() != "help" {
            help(child, &path, text);
        }
    }
}

#[test]
fn help_of_every_command() {
    let mut definition = transship::cli::definition();
    definition.build();
    let mut text = String::new();
    help(&mut definition, "", &mut text);
    insta::assert_snapshot!("help", text);
}

#[test]
fn the_definition_is_sound() {
    transship::cli::definition().debug_assert();
}
