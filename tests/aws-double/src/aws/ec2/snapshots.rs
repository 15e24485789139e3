//! Snapshots in EC2: describe, delete, tiers.

use super::super::blocks::BLOCK;
use super::super::clock::iso;
use super::super::model::Snapshot;
use super::super::world::World;
use super::filters::{filters, matches_all};
use super::{Error, Outcome, Request, Xml, can_see_snapshot, checked_snapshot_id, success};

pub fn describe(world: &mut World, request: &Request) -> Outcome<Xml> {
    let ids = request.list("SnapshotId");
    if !ids.is_empty() && request.text("MaxResults").is_some() {
        return Err(Error::combination(
            "The parameter snapshotIDs cannot be used with the parameter maxResults",
        ));
    }
    ids.iter().try_for_each(|id| checked_snapshot_id(id))?;
    for id in &ids {
        super::snapshot(world, id, request.account)?;
    }
    let (owners, users) = (request.list("Owner"), request.list("RestorableBy"));
    let filters = filters(request)?;
    for name in ["MaxResults", "NextToken"] {
        request.text(name);
    }
    request.authorize(world)?;
    super::images::advance_pending(world, |image| {
        image.restored && (ids.is_empty() || ids.iter().any(|id| image.uses(id)))
    });
    let (account, now) = (request.account, world.now());
    let mut found = Vec::new();
    for snapshot in world.snapshots.values_mut() {
        let listed = ids.is_empty()
            && snapshot.visible_after.describes == 0
            && can_see_snapshot(snapshot, account)
            || ids.contains(&snapshot.id);
        let owner = |value: &String| {
            *value == snapshot.owner
                || value == "self" && snapshot.owner == account
                || Some(value) == snapshot.owner_alias.as_ref()
        };
        let user = |value: &String| match value.as_str() {
            "all" => snapshot.permissions.all,
            "self" => snapshot.owner == account || snapshot.permissions.users.contains(account),
            other => snapshot.permissions.users.contains(other) || snapshot.owner == *other,
        };
        let allowed = (owners.is_empty() || owners.iter().any(owner))
            && (users.is_empty() || users.iter().any(user));
        if !listed || !allowed {
            continue;
        }
        // Each description advances a pending snapshot.
        match &mut snapshot.completing {
            Some(0) => snapshot.complete(now),
            Some(left) => {
                *left -= 1;
                snapshot.progress = snapshot.progress.max(90);
            }
            None => {}
        }
        if matches_all(&filters, &snapshot.tags, |name| filter_values(snapshot, name))? {
            found.push(snapshot.id.clone());
        }
    }
    let entries = found.iter().map(|id| (id.as_str(), &world.snapshots[id])).collect();
    let (page, token) = request.page(world, entries, (5, 1000))?;
    let mut xml = Xml::default();
    xml.list("snapshotSet", page, |xml, (_, snapshot)| write(xml, snapshot));
    xml.option("nextToken", token);
    Ok(xml)
}

fn progress(snapshot: &Snapshot) -> String {
    if snapshot.is_completed() { "100%".to_owned() } else { format!("{}%", snapshot.progress) }
}

fn filter_values(snapshot: &Snapshot, name: &str) -> Option<Vec<String>> {
    let one = |text: &str| vec![text.to_owned()];
    Some(match name {
        "description" => one(&snapshot.description),
        "encrypted" => one(&snapshot.encrypted.to_string()),
        "owner-alias" => snapshot.owner_alias.iter().cloned().collect(),
        "owner-id" => one(&snapshot.owner),
        "progress" => one(&progress(snapshot)),
        "snapshot-id" => one(&snapshot.id),
        "start-time" => one(&iso(snapshot.start_time)),
        "status" => one(&snapshot.state),
        "storage-tier" => one(&snapshot.tier),
        "volume-id" => one(&snapshot.volume_id),
        "volume-size" => one(&snapshot.volume_size.to_string()),
        _ => return None,
    })
}

fn write(xml: &mut Xml, snapshot: &Snapshot) {
    xml.text("snapshotId", &snapshot.id);
    xml.text("volumeId", &snapshot.volume_id);
    xml.text("status", &snapshot.state);
    xml.option("statusMessage", snapshot.state_message.as_ref());
    xml.text("startTime", &iso(snapshot.start_time));
    xml.text("progress", &progress(snapshot));
    xml.text("ownerId", &snapshot.owner);
    xml.option("ownerAlias", snapshot.owner_alias.as_ref());
    xml.value("volumeSize", snapshot.volume_size);
    xml.text("description", &snapshot.description);
    xml.tags(&snapshot.tags);
    xml.value("encrypted", snapshot.encrypted);
    xml.option("kmsKeyId", snapshot.kms_key_id.as_ref());
    xml.text("storageTier", &snapshot.tier);
    xml.option("restoreExpiryTime", snapshot.restore_expiry.map(iso));
    xml.option("completionTime", snapshot.completion_time.map(iso));
    if snapshot.is_completed() {
        xml.value("fullSnapshotSizeInBytes", snapshot.blocks.len() * BLOCK);
    }
    xml.raw(&snapshot.extra_xml);
}

pub fn delete(world: &mut World, request: &Request) -> Outcome<Xml> {
    let id = request.required("SnapshotId")?;
    let snapshot = super::snapshot(world, id, request.account)?;
    if snapshot.owner != request.account {
        return Err(Error::client(
            "OperationNotPermitted",
            format!("The snapshot '{id}' is not owned by you."),
        ));
    }
    request.authorize(world)?;
    if let Some(image) = world.images.values().find(|image| image.uses(id)) {
        return Err(Error::client(
            "InvalidSnapshot.InUse",
            format!("The snapshot {id} is currently in use by {}", image.id),
        ));
    }
    world.snapshots.remove(id);
    Ok(success())
}

pub fn describe_tiers(world: &mut World, request: &Request) -> Outcome<Xml> {
    let filters = filters(request)?;
    for name in ["MaxResults", "NextToken"] {
        request.text(name);
    }
    request.authorize(world)?;
    let mut found = Vec::new();
    for snapshot in world.snapshots.values().filter(|snapshot| snapshot.owner == request.account) {
        let values = |name: &str| match name {
            "snapshot-id" => Some(vec![snapshot.id.clone()]),
            "volume-id" => Some(vec![snapshot.volume_id.clone()]),
            "last-tiering-operation" => {
                Some(last_tiering(snapshot).into_iter().map(str::to_owned).collect())
            }
            _ => None,
        };
        if matches_all(&filters, &snapshot.tags, values)? {
            found.push((snapshot.id.as_str(), snapshot));
        }
    }
    let (page, token) = request.page(world, found, (5, 1000))?;
    let mut xml = Xml::default();
    xml.list("snapshotTierStatusSet", page, |xml, (_, snapshot)| {
        xml.text("snapshotId", &snapshot.id);
        xml.text("volumeId", &snapshot.volume_id);
        xml.text("status", &snapshot.state);
        xml.text("ownerId", &snapshot.owner);
        xml.tags(&snapshot.tags);
        xml.text("storageTier", &snapshot.tier);
        if let Some(last) = last_tiering(snapshot) {
            xml.value("lastTieringProgress", 100);
            xml.text("lastTieringOperationStatus", last);
        }
        xml.option("restoreExpiryTime", snapshot.restore_expiry.map(iso));
    });
    xml.option("nextToken", token);
    Ok(xml)
}

/// The last tiering status. Movements between the tiers take no time here.
fn last_tiering(snapshot: &Snapshot) -> Option<&'static str> {
    match (snapshot.tier.as_str(), snapshot.restore_expiry) {
        ("archive", None) => Some("archival-completed"),
        ("archive", Some(_)) => Some("temporary-restore-completed"),
        _ => None,
    }
}
