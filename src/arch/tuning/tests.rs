use super::{Facts, Tuning, Vendor};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const ZEN_4: Facts = Facts {
    vendor: Vendor::Amd,
    first_cache: Some(32 * KIB),
    second_cache: Some(MIB),
    last_cache: Some(32 * MIB),
    fast_strings: true,
};
const ZEN_5: Facts = Facts { first_cache: Some(48 * KIB), ..ZEN_4 };
const GENOA_X: Facts = Facts { last_cache: Some(96 * MIB), ..ZEN_4 };
const EMERALD_RAPIDS: Facts = Facts {
    vendor: Vendor::Intel,
    first_cache: Some(48 * KIB),
    second_cache: Some(2 * MIB),
    last_cache: Some(300 * MIB),
    fast_strings: true,
};
const NEHALEM: Facts = Facts {
    vendor: Vendor::Intel,
    first_cache: Some(32 * KIB),
    second_cache: Some(256 * KIB),
    last_cache: Some(8 * MIB),
    fast_strings: false,
};
const UNKNOWN: Facts =
    Facts { vendor: Vendor::Other, first_cache: None, second_cache: None, last_cache: None, fast_strings: false };

#[test]
fn copies_go_past_caches_that_would_not_keep_them() {
    let from = |facts: &Facts| Tuning::of(facts).nontemporal_from;
    assert_eq!(from(&ZEN_4), 16 * MIB);
    assert_eq!(from(&ZEN_5), 16 * MIB);
    assert_eq!(from(&GENOA_X), 32 * MIB);
    assert_eq!(from(&EMERALD_RAPIDS), 16 * MIB);
    assert_eq!(from(&NEHALEM), 2 * MIB);
    assert_eq!(from(&UNKNOWN), 16 * MIB);
    assert_eq!(from(&Facts { last_cache: Some(4 * MIB), ..EMERALD_RAPIDS }), 2 * MIB);
}

#[test]
fn chunks_that_strings_copy_well_stay_in_the_last_cache_as_long_as_it_holds_them() {
    let from = |facts: &Facts| (Tuning::of(facts).nontemporal_from, Tuning::of(facts).string_chunks_from);
    assert_eq!(from(&ZEN_5), (16 * MIB, 32 * MIB + 1));
    assert_eq!(from(&Facts { last_cache: Some(96 * MIB), ..ZEN_5 }), (32 * MIB, 32 * MIB + 1));
    assert_eq!(from(&Facts { last_cache: Some(8 * MIB), ..ZEN_5 }), (4 * MIB, 8 * MIB + 1));
    for facts in [ZEN_4, EMERALD_RAPIDS, NEHALEM, UNKNOWN] {
        let (all, strings) = from(&facts);
        assert_eq!(strings, all);
    }
}

#[test]
fn single_lines_of_a_long_copy_are_stored_nontemporally_on_intel_alone() {
    let from = |facts: &Facts| (Tuning::of(facts).lines_from, Tuning::of(facts).ragged_from);
    assert_eq!([ZEN_4, ZEN_5, UNKNOWN].map(|facts| from(&facts)), [(256, 1024); 3]);
    assert_eq!([EMERALD_RAPIDS, NEHALEM].map(|facts| from(&facts)), [(64, 1024); 2]);
}

#[test]
fn rep_movsb_is_used_where_the_cpu_says_that_short_ones_are_fast() {
    let strings = |facts: &Facts| {
        let tuning = Tuning::of(facts);
        (tuning.strings_from, tuning.strings_any_from)
    };
    assert_eq!(strings(&ZEN_4), (16 * KIB, usize::MAX));
    assert_eq!(strings(&ZEN_5), (24 * KIB, 24 * KIB));
    assert_eq!(strings(&EMERALD_RAPIDS), (32 * KIB, 512 * KIB));
    assert_eq!(strings(&NEHALEM), (usize::MAX, usize::MAX));
    assert_eq!(strings(&UNKNOWN), (usize::MAX, usize::MAX));
}

#[test]
fn nontemporal_copies_prefetch_far_ahead_on_intel_alone() {
    let from = |facts: &Facts| Tuning::of(facts).far_from;
    assert_eq!([ZEN_4, ZEN_5, UNKNOWN].map(|facts| from(&facts)), [usize::MAX; 3]);
    assert_eq!([EMERALD_RAPIDS, NEHALEM].map(|facts| from(&facts)), [8 * KIB; 2]);
}

#[test]
fn long_nontemporal_copies_leave_their_source_to_the_hardware_on_zen_5_alone() {
    let from = |facts: &Facts| Tuning::of(facts).unaided_from;
    assert_eq!(from(&ZEN_5), 8 * KIB);
    assert_eq!([ZEN_4, GENOA_X, EMERALD_RAPIDS, NEHALEM, UNKNOWN].map(|facts| from(&facts)), [usize::MAX; 5]);
}

#[test]
fn one_short_durable_range_goes_through_the_cache_on_intel_alone() {
    let from = |facts: &Facts| Tuning::of(facts).durable_from;
    assert_eq!([ZEN_4, ZEN_5, UNKNOWN].map(|facts| from(&facts)), [0; 3]);
    assert_eq!([EMERALD_RAPIDS, NEHALEM].map(|facts| from(&facts)), [640; 2]);
}

#[test]
fn a_text_sets_what_it_names() {
    let own = Tuning::of(&ZEN_5);
    let parse = |text: &str| Tuning::parse(text, &ZEN_5);
    assert_eq!(parse("amd"), Ok(own));
    assert_eq!(parse("durable_from=100"), Ok(Tuning { durable_from: 100, ..own }));
    assert_eq!(parse("intel").unwrap().durable_from, 640);
    assert_eq!(parse("intel").unwrap().nontemporal_from, 8 * MIB, "of this CPU's second cache");
    assert_eq!(parse("intel,durable_from=never").unwrap().durable_from, usize::MAX);
    assert_eq!(parse("intel,strings_from=64").unwrap().strings_from, 64);
}

#[test]
fn a_text_that_makes_no_sense_is_refused_with_what_would() {
    let why = |text: &str| Tuning::parse(text, &ZEN_5).unwrap_err();
    assert_eq!(why("pentium"), "\"pentium\" is none of intel, amd, other and no name=bytes");
    assert_eq!(why(""), "\"\" is none of intel, amd, other and no name=bytes");
    assert_eq!(why("durable_from=1,intel"), "\"intel\" comes first or not at all");
    assert!(why("durable=1").starts_with("\"durable\" is none of nontemporal_from, "));
    for value in ["-1", "1.5", "", "4k", "99999999999999999999999"] {
        assert_eq!(why(&format!("lines_from={value}")), format!("lines_from is {value:?}: expected bytes, or never"));
    }
}

#[test]
fn the_text_of_a_tuning_sets_it_again() {
    for facts in [ZEN_4, EMERALD_RAPIDS, NEHALEM, UNKNOWN] {
        let tuning = Tuning::of(&facts);
        assert_eq!(Tuning::parse(&tuning.text(), &UNKNOWN), Ok(tuning));
    }
}

#[test]
fn what_was_set_is_in_use_until_it_is_put_back() {
    let setting = crate::arch::setting::Setting::keep();
    let before = super::current();
    let changed = Tuning { nontemporal_from: 0, lines_from: 64, durable_from: 77, ..before };
    super::set(changed);
    assert_eq!(super::current(), Tuning { nontemporal_from: 1, ..changed });
    assert_eq!(super::durable_from(), 77);
    assert_eq!(super::chunks_from(0), usize::MAX);
    assert_eq!(super::chunks_from(1), 64);
    for (dst, len, streamed) in [(0, 64, true), (64, 1088, true), (1, 64, false), (0, 65, false), (1, 1024, true)] {
        assert_eq!(super::is_streamed(dst, len, 1 << 30), streamed, "{dst} {len}");
    }
    super::set(Tuning { string_chunks_from: 1000, strings_any_from: 128, ..changed });
    for (len, nbytes, streamed) in [(64, 999, true), (128, 999, false), (128, 1000, true)] {
        assert_eq!(super::is_streamed(0, len, nbytes), streamed, "{len} of {nbytes}");
    }
    super::set(changed);
    assert!(super::choose("nonsense").is_err());
    assert_eq!(super::durable_from(), 77, "a refused text changes nothing");
    drop(setting);
}
