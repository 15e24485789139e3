//! AWS's own store and restore tasks, whose objects only AWS can restore.

use std::time::Duration;

use crate::aws::ec2::{Ec2Connection, RestoreTask, StoreTask, restore_by_aws, store_by_aws};
use crate::aws::s3::S3Location;
use crate::base::{Error, ImageId, Observer, Result, SnapshotId};

/// A store by AWS with its plan.
pub struct StoreByAws(StoreTask);

impl StoreByAws {
    /// Plans the store of an image to a bucket or prefix. AWS names the object `<ami-id>.bin`:
    /// another name in `target` is an error.
    pub fn new(
        image_id: ImageId,
        target: &S3Location,
        tags: Vec<(String, String)>,
        poll_interval: Duration,
    ) -> Result<Self> {
        let (directory, name) = match target.key.rsplit_once('/') {
            Some((directory, name)) => (format!("{directory}/"), name),
            None => (String::new(), target.key.as_str()),
        };
        if !name.is_empty() && name != format!("{image_id}.bin") {
            return Err(Error::usage(
                "AWS names the object itself: give a bucket, or a prefix with / at its end",
            )
            .at("key", &target.key));
        }
        let bucket = target.bucket.clone();
        Ok(Self(StoreTask { image_id, bucket, prefix: directory, tags, poll: poll_interval }))
    }

    /// The image.
    pub fn image_id(&self) -> &ImageId {
        &self.0.image_id
    }

    /// The location of the object that is planned.
    pub fn target(&self) -> S3Location {
        self.location(format!("{}{}.bin", self.0.prefix, self.0.image_id))
    }

    fn location(&self, key: String) -> S3Location {
        S3Location { bucket: self.0.bucket.clone(), key }
    }

    /// Asks EC2 whether it would permit the store.
    pub fn check(&self, ec2: &Ec2Connection) -> Result<()> {
        self.0.check(ec2)
    }

    /// Starts the task and follows it to its end. Returns the location of the object.
    pub fn run(&self, ec2: &Ec2Connection, observer: &dyn Observer) -> Result<S3Location> {
        store_by_aws(ec2, &self.0, observer).map(|key| self.location(key))
    }
}

/// A restore by AWS with its plan.
pub struct RestoreByAws(RestoreTask);

/// The image that AWS restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredByAws {
    /// The new image.
    pub image_id: ImageId,
    /// Its snapshots.
    pub snapshots: Vec<SnapshotId>,
}

impl RestoreByAws {
    /// Plans the restore of an object that AWS stored, under `name` or its recorded name; `tags`
    /// are those of image and snapshots.
    pub fn new(
        object: &S3Location,
        name: Option<String>,
        tags: Vec<(String, String)>,
        poll_interval: Duration,
    ) -> Self {
        let S3Location { bucket, key } = object.clone();
        Self(RestoreTask { bucket, key, name, tags, poll: poll_interval })
    }

    /// Asks EC2 whether it would permit the restore.
    pub fn check(&self, ec2: &Ec2Connection) -> Result<()> {
        self.0.check(ec2)
    }

    /// Starts the task and follows it to its end.
    pub fn run(&self, ec2: &Ec2Connection, observer: &dyn Observer) -> Result<RestoredByAws> {
        let (image_id, snapshots) = restore_by_aws(ec2, &self.0, observer)?;
        Ok(RestoredByAws { image_id, snapshots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    #[test]
    fn aws_names_the_object_below_a_prefix() {
        let id = ImageId::parse("ami-0123456789abcdef0").expect("an id");
        let target = |key: &str| {
            let bucket = S3Location { bucket: "images".to_owned(), key: key.to_owned() };
            StoreByAws::new(id.clone(), &bucket, Vec::new(), Duration::ZERO)
                .map(|store| store.target().key)
        };
        let name = "ami-0123456789abcdef0.bin";
        assert_eq!(target("").expect("a bucket"), name);
        assert_eq!(target(name).expect("its name"), name);
        assert_eq!(target("a/b/").expect("a prefix"), format!("a/b/{name}"));
        assert_eq!(target(&format!("a/{name}")).expect("its name"), format!("a/{name}"));
        for other in ["a/b", "other.bin"] {
            assert_eq!(target(other).expect_err("another name").kind(), ErrorKind::Usage);
        }
    }
}
