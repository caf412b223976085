use aya::{EbpfLoader, programs::*, maps::ProgramArray};
fn main() {
    let obj = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/net.o"));
    let mut bpf = EbpfLoader::new().verifier_log_level(aya::VerifierLogLevel::STATS).map_max_entries("MODEL_STATS", 128).map_max_entries("ENDPOINT_STATS", 128*9).load(obj).unwrap();
    for (n, p) in bpf.programs_mut() {
        let t = std::time::Instant::now();
        let r = match p { Program::CgroupSkb(p) => p.load(), Program::SockOps(p) => p.load(), _ => panic!() };
        match r { Ok(()) => println!("{n}: ok {:?} {:?}", t.elapsed(), p.info().unwrap().verified_instruction_count()),
          Err(ProgramError::LoadError{io_error, verifier_log}) => { let l = verifier_log.to_string(); let v: Vec<&str> = l.lines().collect(); println!("{n}: {io_error} \n{}", v[v.len().saturating_sub(60)..].join("\n")); }
          Err(e) => println!("{n}: {e:?}") }
    }
    let _ : Option<ProgramArray<&mut aya::maps::MapData>> = None;
}
