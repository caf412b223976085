use proptest::prelude::*;

use super::*;

const GPU: &str = "0000:3b:00.0";

fn xids() -> Xids {
    let xids = Xids::default();
    xids.know([GPU, "0000:5e:00.0"]);
    xids
}

fn news(record: &str) -> News {
    parse_record(record).unwrap().news
}

fn xid(number: u64) -> News {
    News::Xid(GPU.to_owned(), number)
}

#[test]
fn an_error_that_both_report_is_counted_once() {
    let xids = xids();
    xids.count(Reporter::Nvml, GPU, 31).unwrap();
    xids.count(Reporter::Kernel, GPU, 31).unwrap();
    xids.count(Reporter::Kernel, GPU, 79).unwrap();
    assert_eq!(xids.count(Reporter::Kernel, GPU, 31), Ok(2));
    xids.count(Reporter::Nvml, "0000:5e:00.0", 48).unwrap();
    let counts: Vec<_> =
        xids.all().into_iter().map(|(pci, xid, count)| (pci[5..7].to_owned(), xid.label(), count)).collect();
    let expected = [("3b", "31", 2), ("3b", "79", 1), ("5e", "48", 1)];
    assert_eq!(counts, expected.map(|(pci, xid, count)| (pci.to_owned(), xid.to_owned(), count)));
    assert_eq!(xids.last(GPU).and_then(Xid::number), Some(31));
}

#[test]
fn records_of_the_driver_are_understood() {
    let record = "4,1234,98765,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.\n SUBSYSTEM=pci\n";
    let parsed = parse_record(record).unwrap();
    assert_eq!((parsed.sequence, parsed.news), (1234, xid(79)));
    let record = "3,7,1,-,caller=T1;NVRM: Xid (PCI:0001:C1:00): 119, Timeout waiting for RPC from GSP!";
    assert_eq!(news(record), News::Xid("0001:c1:00.0".to_owned(), 119));
    assert_eq!(news("6,8,1,-;usb 1-1: new device"), News::None);
}

#[test]
fn errors_of_mig_instances_are_their_gpus() {
    assert_eq!(news("4,1,1,-;NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, Contained: SM"), xid(94));
    assert_eq!(news("4,1,1,-;NVRM: Xid (PCI:0000:3b:00 GPU-I:05 GPU-CI:00): 31, pid=7, MMU Fault"), xid(31));
    for place in ["0000:3b:00 GPU-CI:00 GPU-I:05", "0000:3b:00 x", "0000:3b:00 GPU-I:", "0000:3b:00 GPU-I:1 GPU-CI:1 x"]
    {
        let line = format!("4,1,1,-;NVRM: Xid (PCI:{place}): 79, x");
        assert_eq!(news(&line), News::Refused(Refusal::Malformed), "{place}");
    }
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_understood_without_an_xid() {
    let fallen = News::Fallen(GPU.to_owned());
    assert_eq!(news("3,1,1,-;NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus."), fallen);
    let at_start = "3,1,1,-;NVRM: The NVIDIA GPU 0000:3b:00.0\\x0aNVRM: (PCI ID: 10de:2330) installed in this system has\\x0aNVRM: fallen off the bus and is not responding to commands.";
    assert_eq!(news(at_start), fallen);
    assert_eq!(news("3,1,1,-;NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x62:0x40:1860)"), News::None);
    assert_eq!(news("12,1,1,-;NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus."), News::Refused(Refusal::NotKernel));
}

#[test]
fn lines_that_others_can_have_logged_are_not_the_drivers() {
    // A program wrote it.
    assert_eq!(news("12,9,1,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1"), News::Refused(Refusal::NotKernel));
    // A mount option of any user with a user namespace.
    let option = "3,9,1,-;tmpfs: Unknown parameter 'NVRM: Xid (PCI:0000:3b:00): 79, pid=1'";
    assert_eq!(news(option), News::Refused(Refusal::NotAtStart));
    // With a line end in it, which the kernel escapes.
    let broken = "3,9,1,-;tmpfs: Unknown parameter '\\x0aNVRM: Xid (PCI:0000:3b:00): 79, pid=1'";
    assert_eq!(news(broken), News::Refused(Refusal::NotAtStart));
    // The rest of a line, printed on its own.
    assert_eq!(news("3,9,1,c;NVRM: Xid (PCI:0000:3b:00): 79, pid=1"), News::Refused(Refusal::Fragment));
    for line in ["NVRM: Xid (PCI:0000:3b:00): ", "NVRM: Xid (PCI:+0:3b:00): 79", "NVRM: Xid (PCI:3b:00): 79, x"] {
        assert_eq!(news(&format!("3,9,1,-;{line}")), News::Refused(Refusal::Malformed), "{line}");
    }
}

#[test]
fn only_gpus_of_this_host_count_and_the_series_are_bounded() {
    let xids = xids();
    for number in 0..20_000 {
        let address = super::super::pci::address(number, number % 256, number % 32);
        assert_eq!(xids.count(Reporter::Kernel, &address, u64::from(number)), Err(Refusal::NotAGpu));
        xids.count(Reporter::Kernel, GPU, u64::from(number)).unwrap();
    }
    assert_eq!(xids.refused(), BTreeMap::from([(Refusal::NotAGpu, 20_000)]));
    let all = xids.all();
    assert_eq!(all.len(), 257, "1 to 255, 999, and one for the rest");
    assert_eq!(all.iter().map(|(_, _, count)| count).sum::<u64>(), 20_000, "each counted once");
    assert_eq!(all[0].1.label(), "other");
    xids.know(
        (0..20_000).map(|number| super::super::pci::address(number, 1, 1)).collect::<Vec<_>>().iter().map(|a| &**a),
    );
    assert_eq!(xids.with(|state| state.gpus.len()), MOST_GPUS);
}

#[test]
fn errors_of_the_memory_have_its_counters_read() {
    let xids = xids();
    for (number, expected) in [(31, false), (48, true), (79, false), (94, true), (95, true)] {
        xids.count(Reporter::Kernel, GPU, number).unwrap();
        assert_eq!(xids.take_ecc(), expected, "{number}");
    }
    assert!(!xids.take_ecc());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_makes_it_panic(line in "[0-9,;:()A-Za-z \\n]{0,80}|\\PC{0,80}", xid in "[0-9]{0,30}") {
        _ = parse_record(&line);
        _ = parse_record(&format!("4,1,1,-;NVRM: Xid (PCI:{line}): {xid}"));
        _ = parse_record(&format!("4,1,1,-;NVRM: The NVIDIA GPU {line} fallen off the bus"));
    }
}
