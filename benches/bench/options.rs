//! The command line of the benchmark.

use std::path::PathBuf;

use clap::Parser;

/// Measures transship beside other tools, on this machine, in one run
#[derive(Clone, Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    /// How often each tool does each work; the median counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub rounds: usize,

    /// Only these works (see --list), with commas between
    #[arg(long, value_name = "WORK", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Only tools whose name contains one of these; transship always takes part
    #[arg(long, value_name = "TOOL", value_delimiter = ',')]
    pub tools: Vec<String>,

    /// Small data and one round unless --rounds says more: shows that the benchmark works, and nothing else
    #[arg(long)]
    pub quick: bool,

    /// Measure skopeo in the work that takes it many minutes too (w4)
    #[arg(long)]
    pub slow: bool,

    /// Say which works there are, and end
    #[arg(long)]
    pub list: bool,

    /// Measure this binary instead of the one that Cargo built
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// Where registries store, for all tools alike; target/bench unless said
    #[arg(long, value_name = "DIR")]
    pub storage: Option<PathBuf>,

    /// Where result.json and result.md go; target/bench unless said
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Write the tables to this file too; where it has the lines `<!-- results: begin -->` and `<!-- results: end -->`, between
    /// them
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,

    /// What `cargo bench` gives to every benchmark
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Options {
    pub fn rounds(&self) -> usize {
        // One round where only the working is shown; whoever wants more says so.
        if self.quick && self.rounds == 5 {
            1
        } else {
            self.rounds.max(1)
        }
    }

    pub fn wants(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only.eq_ignore_ascii_case(work))
    }
}
