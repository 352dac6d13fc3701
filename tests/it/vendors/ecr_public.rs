//! ECR Public: how many pieces an upload may have.

use transship::vendors::habits_for;

const MIB: u64 = 1024 * 1024;

/// AWS's "Service quotas" of ECR Public: 1,000 pieces of 5 to 10 MiB, and layers of 10,000 MiB.
#[test]
fn ecr_public_pieces_are_so_long_that_a_thousand_are_enough_for_the_largest_layer() {
    let habits = habits_for("public.ecr.aws");
    let longest = habits.max_piece.expect("a limit");
    assert!(habits.min_piece <= longest && longest <= 10 * MIB);
    assert!((10_000 * MIB).div_ceil(habits.min_piece) <= 1000);
}
