//! What rules say, seen at real registries.

mod destinations;
mod overtaken;
mod overwriting;
mod own_pace;
mod planning;
mod selection;
mod silent;
mod unheard;
mod verifying;

use serde_json::Value;

use crate::support::command::Transship;

/// One rule from `src` to `dst` for the repository `app`, with these further keys.
fn app(keys: &str) -> String {
    format!("rules:\n  - name: app\n    source: src\n    destinations: [dst]\n    repositories: [app]\n{keys}")
}

fn outcomes(run: &Value, destination: usize) -> Vec<(&str, u64)> {
    let images = run["destinations"][destination]["images"].as_object().expect("images");
    let counts = images
        .iter()
        .filter_map(|(name, count)| Some((name.as_str(), count.as_u64()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

async fn json_of(home: &Transship, arguments: &[&str], code: i32) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--format", "json"]).collect();
    home.run(&arguments).await.expect(code).json()
}
