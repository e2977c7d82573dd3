//! A profile resolved for one architecture: for each number the answer, as ranges, and their code.

use crate::arch::Arch;
use crate::program::{Compare, Label, Writer, offset};

/// One condition on an argument, with the constants as they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u32,
    /// How it is compared.
    pub test: Test,
}

/// What holds of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// `argument & mask == value`
    Masked {
        /// The bits that count.
        mask: u64,
        /// What they are.
        value: u64,
    },
    /// `argument != value`
    Ne(u64),
    /// `argument >= value`
    Ge(u64),
    /// `argument > value`
    Gt(u64),
    /// `argument < value`
    Lt(u64),
    /// `argument <= value`
    Le(u64),
}

/// Conditions that must all hold, and the answer if they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The value that the filter gives then.
    pub answer: u32,
}

/// The answer to one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The number as the kernel passes it.
    pub number: u32,
    /// Tried in order.
    pub cases: Vec<Case>,
    /// The answer where no case holds.
    pub otherwise: u32,
}

/// What a run of numbers gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Value(u32),
    /// The cases of the verdict at this index.
    Cases(usize),
}

/// A run of numbers from `start` to the next run's start, in which up to [`SINGLES`] numbers differ from the rest.
struct Run {
    start: u32,
    singles: Vec<(u32, Answer)>,
    rest: Answer,
}

/// How many lone numbers one run takes: each costs one comparison, but lies behind those before it.
const SINGLES: usize = 3;

/// What numbers get that no verdict is about.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    /// Up to the highest number that the profile knows.
    pub known: u32,
    /// That highest number and the answer above it.
    pub newer: Option<(u32, u32)>,
}

/// Writes the code for all numbers of one architecture, from `low` up. The accumulator holds the number.
///
/// `verdicts` are sorted by number, each once.
pub fn write(writer: &mut Writer, arch: Arch, low: u32, verdicts: &[Verdict], gaps: Gaps) -> Label {
    // Calls of one rule share its code: the first one's.
    let mut distinct: Vec<usize> = Vec::new();
    let mut answers: Vec<Answer> = Vec::with_capacity(verdicts.len());
    for (index, verdict) in verdicts.iter().enumerate() {
        let same = |other: &Verdict| other.otherwise == verdict.otherwise && other.cases == verdict.cases;
        answers.push(match distinct.iter().find(|first| same(&verdicts[**first])) {
            _ if verdict.cases.is_empty() => Answer::Value(verdict.otherwise),
            Some(first) => Answer::Cases(*first),
            None => {
                distinct.push(index);
                Answer::Cases(index)
            }
        });
    }
    let numbers = verdicts.iter().map(|v| v.number).zip(answers);
    let runs = fuse(&ranges(low, numbers, gaps));
    let mut blocks: Vec<Option<Label>> = vec![None; verdicts.len()];
    for index in distinct {
        blocks[index] = Some(write_cases(writer, arch, &verdicts[index]));
    }
    let top = write_tree(writer, &runs, &blocks);
    writer.continue_at(top);
    top
}

/// Lays the numbers out as ranges without two equal neighbours: start of each, and what it gets.
fn ranges(low: u32, numbers: impl Iterator<Item = (u32, Answer)>, gaps: Gaps) -> Vec<(u32, Answer)> {
    let mut out: Vec<(u32, Answer)> = Vec::new();
    let mut add = |start: u32, answer: Answer| {
        if out.last().is_none_or(|(_, last)| *last != answer) {
            out.push((start, answer));
        }
    };
    let mut next = Some(low);
    for (number, answer) in numbers {
        if let Some(from) = next.filter(|n| *n < number) {
            add(from, Answer::Value(gaps.known));
        }
        add(number, answer);
        next = number.checked_add(1);
    }
    match (next, gaps.newer) {
        (Some(next), Some((highest, newer))) => {
            if next <= highest {
                add(next, Answer::Value(gaps.known));
            }
            if let Some(above) = highest.checked_add(1) {
                add(above.max(next), Answer::Value(newer));
            }
        }
        (Some(next), None) => add(next, Answer::Value(gaps.known)),
        (None, _) => {}
    }
    out
}

/// Joins ranges around lone numbers into runs.
fn fuse(ranges: &[(u32, Answer)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(ranges.len());
    let mut at = 0;
    while at < ranges.len() {
        let (start, rest) = ranges[at];
        let mut singles = Vec::new();
        at += 1;
        while singles.len() < SINGLES
            && let (Some(single), Some(after)) = (ranges.get(at), ranges.get(at + 1))
            && single.0 + 1 == after.0
            && after.1 == rest
        {
            singles.push(*single);
            at += 2;
        }
        runs.push(Run { start, singles, rest });
    }
    runs
}

fn write_tree(writer: &mut Writer, runs: &[Run], blocks: &[Option<Label>]) -> Label {
    if let [run] = runs {
        let mut label = place(writer, run.rest, blocks);
        for (number, answer) in run.singles.iter().rev() {
            let hit = place(writer, *answer, blocks);
            label = writer.branch(Compare::Eq, *number, hit, label);
        }
        return label;
    }
    let (left, right) = runs.split_at(runs.len() / 2);
    let boundary = right[0].start;
    let above = write_tree(writer, right, blocks);
    let below = write_tree(writer, left, blocks);
    writer.branch(Compare::Ge, boundary, above, below)
}

fn place(writer: &mut Writer, answer: Answer, blocks: &[Option<Label>]) -> Label {
    match answer {
        Answer::Value(value) => writer.give(value),
        // `Answer::Cases` is made only for verdicts with cases, and each of those has a block.
        Answer::Cases(index) => blocks[index].unwrap_or_else(|| unreachable!("a verdict with cases has code")),
    }
}

fn write_cases(writer: &mut Writer, arch: Arch, verdict: &Verdict) -> Label {
    let mut fail = writer.give(verdict.otherwise);
    for case in verdict.cases.iter().rev() {
        let mut pass = writer.give(case.answer);
        for condition in case.conditions.iter().rev() {
            pass = write_condition(writer, arch, *condition, pass, fail);
        }
        fail = pass;
    }
    fail
}

fn write_condition(writer: &mut Writer, arch: Arch, condition: Condition, yes: Label, no: Label) -> Label {
    let argument = condition.argument;
    match condition.test {
        Test::Masked { mask, value } => write_masked(writer, arch, argument, (mask, value), yes, no),
        Test::Ne(value) => write_masked(writer, arch, argument, (u64::MAX, value), no, yes),
        Test::Ge(value) => write_order(writer, arch, argument, (Compare::Ge, value), yes, no),
        Test::Gt(value) => write_order(writer, arch, argument, (Compare::Gt, value), yes, no),
        Test::Lt(value) => write_order(writer, arch, argument, (Compare::Ge, value), no, yes),
        Test::Le(value) => write_order(writer, arch, argument, (Compare::Gt, value), no, yes),
    }
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn write_masked(
    writer: &mut Writer,
    arch: Arch,
    argument: u32,
    (mask, value): (u64, u64),
    yes: Label,
    no: Label,
) -> Label {
    let (mask_high, mask_low) = halves(mask);
    let (value_high, value_low) = halves(value);
    let low = write_word(writer, offset::low(argument), (mask_low, value_low), yes, no);
    if !arch.has_wide_arguments() || (mask_high == 0 && value_high == 0) {
        return low;
    }
    write_word(writer, offset::high(argument), (mask_high, value_high), low, no)
}

fn write_word(writer: &mut Writer, offset: u32, (mask, value): (u32, u32), yes: Label, no: Label) -> Label {
    writer.branch(Compare::Eq, value, yes, no);
    if mask != u32::MAX {
        writer.mask(mask);
    }
    writer.load(offset)
}

fn write_order(
    writer: &mut Writer,
    arch: Arch,
    argument: u32,
    (compare, value): (Compare, u64),
    yes: Label,
    no: Label,
) -> Label {
    let (high, low) = halves(value);
    writer.branch(compare, low, yes, no);
    let below = writer.load(offset::low(argument));
    if !arch.has_wide_arguments() {
        return below;
    }
    // Equal high halves leave it to the low ones; otherwise the high ones decide.
    let equal = writer.branch(Compare::Eq, high, below, no);
    writer.branch(Compare::Gt, high, yes, equal);
    writer.load(offset::high(argument))
}
