//! An image in EC2 that has some of everything, and the comparison of two images.

use std::collections::BTreeMap;

use amistore_aws_double::aws::{Content, Ebs, Image, Mapping, Permissions, Snapshot, TestAws};

/// Blocks of a volume (what is random differs by its index, and is quickly made for one seed): data
/// that compresses, data that does not, a written zero block, and many that are absent.
pub fn blocks(seed: u64) -> Vec<(u32, Content)> {
    let mut blocks: Vec<(u32, Content)> =
        (0..8).map(|index| (index, Content::random(seed))).collect();
    blocks.push((25, Content::Zero));
    blocks.push((26, Content::bytes(b"boot")));
    blocks.push((31, Content::Zero));
    blocks.push((2047, Content::random(seed)));
    blocks
}

/// An image with three volumes, one snapshot behind two devices, an ephemeral and an empty device,
/// UEFI data, and 30 tags with names and values in many scripts.
pub fn rich_image(aws: &TestAws) -> String {
    let tags = |count: u32| -> BTreeMap<String, String> {
        let words = ["größe", "Київ", "数据", "ñandú", "🦀 crab", ""];
        (0..count)
            .map(|index| {
                (
                    format!("ключ-{index:02}"),
                    format!("{} {index}", words[index as usize % words.len()]).trim().to_owned(),
                )
            })
            .collect()
    };
    let root = aws.add_snapshot(
        Snapshot { tags: tags(3), description: "root — корень".into(), ..Snapshot::new(1) }
            .with(blocks(1)),
    );
    let data = aws.add_snapshot(Snapshot { encrypted: true, ..Snapshot::new(2) }.with(blocks(2)));
    let third = aws.snapshot_of(1, blocks(3));
    let ebs = |snapshot: &str, kind: &str| Ebs {
        snapshot_id: Some(snapshot.to_owned()),
        volume_type: Some(kind.to_owned()),
        delete_on_termination: Some(kind == "gp3"),
        ..Ebs::default()
    };
    let volume = |device: &str, ebs| Mapping {
        device: device.to_owned(),
        ebs: Some(ebs),
        ..Mapping::default()
    };
    let mappings = vec![
        volume(
            "/dev/xvda",
            Ebs {
                iops: Some(4000),
                throughput: Some(250),
                volume_size: Some(10),
                ..ebs(&root, "gp3")
            },
        ),
        volume("/dev/sdb", Ebs { iops: Some(5000), volume_size: Some(10), ..ebs(&data, "io2") }),
        volume("/dev/sdc", Ebs { volume_size: Some(125), ..ebs(&data, "st1") }),
        volume("/dev/sdd", ebs(&third, "gp2")),
        Mapping {
            device: "/dev/sde".into(),
            virtual_name: Some("ephemeral0".into()),
            ..Mapping::default()
        },
        volume(
            "/dev/sdf",
            Ebs {
                volume_size: Some(7),
                volume_type: Some("standard".into()),
                delete_on_termination: Some(true),
                ..Ebs::default()
            },
        ),
    ];
    aws.add_image(Image {
        description: Some("Ein Abbild — образ".into()),
        architecture: "arm64".into(),
        ena_support: Some(true),
        sriov_net_support: Some("simple".into()),
        boot_mode: Some("uefi".into()),
        tpm_support: Some("v2.0".into()),
        imds_support: Some("v2.0".into()),
        uefi_data: Some("QU1aTlVFRkkA".into()),
        tags: tags(30),
        mappings,
        launch: Permissions { users: ["777788889999".to_owned()].into(), ..Permissions::default() },
        deprecation_time: Some("2035-01-01T00:00:00.000Z".into()),
        deregistration_protection: Some("enabled-without-cooldown".into()),
        last_launched: Some("2026-01-01T00:00:00Z".into()),
        extra_xml: "<newThing><item><deep>1</deep></item></newThing>".into(),
        ..Image::new("web server (v1.0)", &root)
    })
}

/// Asserts that a restored image equals the original as far as EC2 allows: attributes, devices,
/// tags, and the state and bytes of every block.
pub fn assert_same(source: &TestAws, source_id: &str, target: &TestAws, target_id: &str) {
    let (old, new) = (
        source.image(source_id).expect("the source"),
        target.image(target_id).expect("the new image"),
    );
    let attributes = |image: &Image| {
        let Image {
            name,
            description,
            architecture,
            virtualization_type,
            root_device_name,
            ena_support,
            ..
        } = image.clone();
        let Image {
            sriov_net_support,
            boot_mode,
            tpm_support,
            imds_support,
            uefi_data,
            tags,
            state,
            ..
        } = image.clone();
        format!(
            "{:#?}",
            (
                (
                    name,
                    description,
                    architecture,
                    virtualization_type,
                    root_device_name,
                    ena_support,
                    sriov_net_support
                ),
                (boot_mode, tpm_support, imds_support, uefi_data, tags, state)
            )
        )
    };
    assert_eq!(attributes(&old), attributes(&new));
    assert_eq!(old.mappings.len(), new.mappings.len());
    let mut renamed = BTreeMap::new();
    for (old, new) in old.mappings.iter().zip(&new.mappings) {
        let plain = |mapping: &Mapping| {
            let mut mapping = mapping.clone();
            if let Some(ebs) = &mut mapping.ebs {
                (ebs.snapshot_id, ebs.encrypted, ebs.kms_key_id) = (None, None, None);
            }
            mapping
        };
        assert_eq!(plain(old), plain(new));
        let (old, new) =
            (old.snapshot_id().map(ToOwned::to_owned), new.snapshot_id().map(ToOwned::to_owned));
        if let Some(before) = renamed.insert(old.clone(), new.clone()) {
            assert_eq!(before, new, "one snapshot stays one");
        }
    }
    for (old, new) in renamed.into_iter().filter_map(|(old, new)| Some((old?, new?))) {
        let (old, new) = (
            source.snapshot(&old).expect("the source"),
            target.snapshot(&new).expect("the new snapshot"),
        );
        assert_eq!((new.state.as_str(), old.volume_size), ("completed", new.volume_size));
        assert_eq!(old.tags, new.tags);
        assert_eq!(old.digests(), new.digests());
    }
}
