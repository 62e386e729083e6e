//! The floor: what the traps alone cost.

use memtrace::{
    id::Tgid,
    probe::{AttachPoint, Attachments, Features, KernelOptions, KernelSide, Purpose},
    target::{discover::Discoverer, family::CustomFunctions, process::ProcFs},
};

/// Attaches empty programs at every place that memtrace would probe, returns included.
pub fn run(pid: u32) -> anyhow::Result<()> {
    let tgid = Tgid(pid);
    let (mut kernel, _ring) = KernelSide::load(&KernelOptions::default(), &Features::detect())?;
    let mut discoverer = Discoverer::new(ProcFs::default(), CustomFunctions::default());
    let found = discoverer.discover(tgid)?;
    let mut attachments = Attachments::default();
    for object in &found.objects {
        let path = object.analysis.object.attach_path();
        let mut points = Vec::new();
        for probe in &object.analysis.functions {
            let point = AttachPoint {
                path: &path,
                offset: probe.file_offset(),
                function: probe.placement.function,
                process: Some(tgid),
                returns: &probe.returns,
                anchor: None,
            };
            points.push(point);
        }
        kernel
            .attach(&mut attachments, &points, Purpose::Floor)
            .into_iter()
            .collect::<Result<(), _>>()?;
    }
    eprintln!("{} empty probes", attachments.len());
    super::until_told()
}
