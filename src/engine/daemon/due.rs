//! When each rule is due: plain arithmetic on the two clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::rules::{MissedRuns, Overlap, Rule, RuleName, Schedule};

/// A difference between the clocks that is no rounding: the wall clock was set, or the machine slept.
const JUMP: Duration = Duration::from_secs(5);

/// A rule that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) rule: RuleName,
    pub(super) overlap: Overlap,
}

/// Puts those of a higher priority first; the others stay in their order.
pub(super) fn by_priority(due: &mut [Due], rules: &[Rule]) {
    let priority = |due: &Due| {
        let rule = rules.iter().find(|rule| rule.name == due.rule);
        rule.map_or(0, |rule| rule.priority)
    };
    due.sort_by_key(|due| std::cmp::Reverse(priority(due)));
}

/// The rules that have a schedule, and when each is due next.
#[derive(Debug)]
pub(super) struct Agenda {
    entries: BTreeMap<RuleName, Entry>,
    missed: Vec<Due>,
    /// Both clocks when they were last looked at.
    looked: (Timestamp, Duration),
}

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    next: Option<Timestamp>,
}

impl Agenda {
    pub(super) fn new(rules: &[Rule], now: Timestamp, elapsed: Duration) -> Self {
        let mut agenda = Self {
            entries: BTreeMap::new(),
            missed: Vec::new(),
            looked: (now, elapsed),
        };
        agenda.replace(rules, now);
        agenda
    }

    /// Takes other rules. A rule whose schedule stays keeps its next time.
    pub(super) fn replace(&mut self, rules: &[Rule], now: Timestamp) {
        let mut before = std::mem::take(&mut self.entries);
        for rule in rules {
            let Some(schedule) = &rule.schedule else { continue };
            let kept = before.remove(&rule.name).filter(|entry| entry.schedule == *schedule);
            let entry = kept.unwrap_or_else(|| Entry {
                next: schedule.next_after(now, rule.name.as_str()),
                schedule: schedule.clone(),
            });
            self.entries.insert(rule.name.clone(), entry);
        }
    }

    /// Adds the rules whose time came while no daemon ran, except those that run again anyway.
    pub(super) fn add_missed(
        &mut self,
        rules: &[Rule],
        last_started: &BTreeMap<RuleName, Timestamp>,
        except: &BTreeSet<RuleName>,
        now: Timestamp,
    ) {
        for rule in rules {
            let Some(schedule) = &rule.schedule else { continue };
            let last = last_started.get(&rule.name).copied();
            if !except.contains(&rule.name) && schedule.missed(last, now, rule.name.as_str()) {
                self.missed.push(Due {
                    rule: rule.name.clone(),
                    overlap: schedule.overlap,
                });
            }
        }
    }

    /// Makes a rule due at the next look.
    pub(super) fn add(&mut self, rule: RuleName) {
        let overlap = Overlap::Skip;
        self.missed.push(Due { rule, overlap });
    }

    /// When the given rule is due next.
    pub(super) fn next_at(&self, rule: &RuleName) -> Option<Timestamp> {
        self.entries.get(rule).and_then(|entry| entry.next)
    }

    /// When the next rule is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.entries.values().filter_map(|entry| entry.next).min()
    }

    /// The rules that are due now; each is due next at its next time after now. After a jump of the wall clock, times that
    /// were jumped over count as missed, and a clock set back makes no time come twice.
    pub(super) fn take_due(&mut self, now: Timestamp, elapsed: Duration) -> Vec<Due> {
        let (wall, monotonic) = self.looked;
        self.looked = (now, elapsed);
        let passed = elapsed.saturating_sub(monotonic);
        let moved = now.duration_since(wall);
        let set_back = moved.is_negative() || moved.unsigned_abs() + JUMP < passed;
        let set_forward = !moved.is_negative() && moved.unsigned_abs() > passed + JUMP;
        let mut due = std::mem::take(&mut self.missed);
        for (rule, entry) in &mut self.entries {
            if set_back {
                // What was due at the old time still is due then, or at a nearer time that the clock shows now.
                let nearer = entry.schedule.next_after(now, rule.as_str());
                entry.next = nearer;
                continue;
            }
            let Some(next) = entry.next.filter(|next| *next <= now) else {
                continue;
            };
            entry.next = entry.schedule.next_after(now, rule.as_str());
            let late = now.duration_since(next).unsigned_abs();
            let jumped_over = set_forward && late > JUMP;
            let run = !jumped_over || entry.schedule.missed == MissedRuns::Run && late <= entry.schedule.missed_within;
            if run {
                due.push(Due {
                    rule: rule.clone(),
                    overlap: entry.schedule.overlap,
                });
            } else {
                tracing::warn!(%rule, due = %next, "the clock jumped over a due time: passed over");
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{MovedTags, OnConflict, PlatformPolicy, RegistryName, RetryPolicy, TagFilter};

    fn rule(cron: &str) -> Rule {
        Rule {
            name: RuleName::new("r"),
            source: RegistryName::new("a"),
            destinations: Vec::new(),
            repositories: Vec::new(),
            tags: TagFilter::default(),
            schedule: Some(Schedule::parse(cron, "UTC").expect("a schedule")),
            moved_tags: MovedTags::Follow,
            on_conflict: OnConflict::Overwrite,
            trust_destination: Duration::ZERO,
            platforms: PlatformPolicy::default(),
            retry: RetryPolicy::default(),
            priority: 0,
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-03-01T{text}Z").parse().expect("a time")
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_rule_is_due_once() {
        let mut agenda = Agenda::new(&[rule("*/10 * * * *")], at("10:01:00"), seconds(0));
        assert_eq!(agenda.next(), Some(at("10:10:00")));
        assert_eq!(agenda.take_due(at("10:09:59"), seconds(539)), []);
        assert_eq!(agenda.take_due(at("10:10:00"), seconds(540)).len(), 1);
        assert_eq!(agenda.take_due(at("10:10:01"), seconds(541)), []);
        assert_eq!(agenda.next(), Some(at("10:20:00")));
    }

    #[test]
    fn a_clock_set_forward_runs_once_for_what_it_jumped_over() {
        let mut agenda = Agenda::new(&[rule("*/10 * * * *")], at("10:01:00"), seconds(0));
        assert_eq!(agenda.take_due(at("10:45:00"), seconds(1)).len(), 1);
        assert_eq!(agenda.next(), Some(at("10:50:00")));
    }

    #[test]
    fn a_clock_set_forward_too_far_runs_nothing() {
        let mut daily = rule("0 3 * * *");
        let mut agenda = Agenda::new(&[daily.clone()], at("02:00:00"), seconds(0));
        assert_eq!(agenda.take_due(at("09:00:00"), seconds(1)), []);
        if let Some(schedule) = &mut daily.schedule {
            schedule.missed_within = seconds(24 * 3600);
        }
        let mut agenda = Agenda::new(&[daily], at("02:00:00"), seconds(0));
        assert_eq!(agenda.take_due(at("09:00:00"), seconds(1)).len(), 1);
    }

    #[test]
    fn a_clock_set_back_repeats_nothing_at_once() {
        let mut agenda = Agenda::new(&[rule("*/10 * * * *")], at("10:01:00"), seconds(0));
        assert_eq!(agenda.take_due(at("10:10:00"), seconds(540)).len(), 1);
        assert_eq!(agenda.take_due(at("09:00:30"), seconds(550)), []);
        assert_eq!(agenda.next(), Some(at("09:10:00")));
    }

    #[test]
    fn a_late_look_is_no_jump() {
        // The process was busy: both clocks moved alike.
        let mut agenda = Agenda::new(&[rule("0 3 * * *")], at("02:59:00"), seconds(0));
        assert_eq!(agenda.take_due(at("03:30:00"), seconds(31 * 60)).len(), 1);
    }

    #[test]
    fn those_of_a_higher_priority_start_first() {
        let named = |name: &str, priority| Rule {
            name: RuleName::new(name),
            priority,
            ..rule("*/10 * * * *")
        };
        let rules = [named("a", 0), named("b", -5), named("c", 7), named("d", 0)];
        let mut agenda = Agenda::new(&rules, at("10:01:00"), seconds(0));
        let mut due = agenda.take_due(at("10:10:00"), seconds(540));
        by_priority(&mut due, &rules);
        let names: Vec<&str> = due.iter().map(|due| due.rule.as_str()).collect();
        assert_eq!(names, ["c", "a", "d", "b"]);
    }

    #[test]
    fn other_rules_keep_what_stays() {
        let mut agenda = Agenda::new(&[rule("*/10 * * * *")], at("10:01:00"), seconds(0));
        agenda.replace(&[rule("*/10 * * * *")], at("10:15:00"));
        assert_eq!(
            agenda.next(),
            Some(at("10:10:00")),
            "a due time is not lost by a reload"
        );
        agenda.replace(&[rule("0 12 * * *")], at("10:15:00"));
        assert_eq!(agenda.next(), Some(at("12:00:00")));
        agenda.replace(&[], at("10:15:00"));
        assert_eq!(agenda.next(), None);
    }
}
