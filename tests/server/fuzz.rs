//! Forms out of a table of the actions' parameters, right and wrong ones: there is always an
//! answer, and what is right arrives.

use amistore::internals::aws::ec2_query::{Params, ServiceError, answer};

use super::caller::Bench;
use super::memory::{Heard, lock};
use crate::support::image::Random;

/// An action, and its parameters: name, values that are right, whether it has to be there.
type Schema = (&'static str, &'static [(&'static str, &'static [&'static str], bool)]);

const SCHEMAS: [Schema; 3] = [
    (
        "CreateStoreImageTask",
        &[
            ("ImageId", &["ami-01234567", "ami-0abcdef1234567890"], true),
            ("Bucket", &["my-bucket", "my-bucket/a/b", "my-bucket/ä +&=/"], true),
            ("S3ObjectTag.#.Key", &["a", "ü +&=%", "k/:@"], false),
        ],
    ),
    (
        "DescribeStoreImageTasks",
        &[("ImageId.#", &["ami-01234567", "ami-89abcdef"], false), ("NextToken", &[""], false)],
    ),
    (
        "CreateRestoreImageTask",
        &[
            ("Bucket", &["my-bucket", "b.c"], true),
            ("ObjectKey", &["a.bin", "a/b c/ü.bin"], true),
            ("Name", &["restored ami", "x-1.(2)"], false),
        ],
    ),
];

/// Faulty names and values.
const JUNK: [&str; 16] = [
    "",
    "\0",
    "true",
    "TRUE",
    "-1",
    "99999999999999999999",
    "ami-",
    "<!ENTITY x \"y\">",
    "]]>",
    "\u{FFFE}",
    "a&b=c",
    "../..",
    "Filter.1.Name",
    "TagSpecification.1.Tag.1",
    ".",
    "\u{1F600}",
];

fn pick<'a, T: ?Sized>(random: &mut Random, from: &[&'a T]) -> &'a T {
    from[random.below(from.len() as u64) as usize]
}

/// A form that is right.
fn valid(random: &mut Random, schema: &Schema) -> Vec<(String, String)> {
    let mut pairs = vec![
        ("Action".to_owned(), schema.0.to_owned()),
        ("Version".to_owned(), "2016-11-15".to_owned()),
    ];
    for (name, values, is_required) in schema.1 {
        if *is_required || random.below(2) == 0 {
            // Numbers may begin anywhere.
            let name = name.replace('#', &(1 + random.below(30)).to_string());
            pairs.push((name, pick(random, values).to_owned()));
        }
    }
    let last = pairs.len() - 1;
    let from = random.below(pairs.len() as u64) as usize;
    pairs.swap(from, last);
    pairs
}

fn mutate(random: &mut Random, pairs: &mut Vec<(String, String)>) {
    for _ in 0..=random.below(3) {
        let at = random.below(pairs.len().max(1) as u64) as usize;
        let Some(pair) = pairs.get(at).cloned() else { return };
        match random.below(7) {
            0 => drop(pairs.remove(at)),
            1 => pairs.push(pair),
            2 => pick(random, &JUNK).clone_into(&mut pairs[at].1),
            3 => pairs[at].0.push_str(pick(random, &JUNK)),
            4 => pairs[at].0 = pair.0.replace(['1', '2'], pick(random, &JUNK)),
            5 => pairs.push((
                pick(
                    random,
                    &[
                        "Filter.1.Name",
                        "Filter.1.Value.1",
                        "MaxResults",
                        "DryRun",
                        "TagSpecification.1.ResourceType",
                    ],
                )
                .to_owned(),
                pick(random, &JUNK).to_owned(),
            )),
            _ => pairs[at].1 = pair.1.repeat(1 + random.below(100) as usize),
        }
    }
}

fn encoded(pairs: Vec<(String, String)>) -> String {
    pairs.into_iter().collect::<Params>().encode()
}

#[test]
fn what_is_right_arrives() {
    let bench = Bench::start();
    let mut random = Random(7);
    for _ in 0..300 {
        let schema = SCHEMAS[random.below(3) as usize];
        let pairs = valid(&mut random, &schema);
        let sent = |name: &str| {
            pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let form = encoded(pairs.clone());
        let reply = bench.call(&form);
        assert_eq!(reply.status, 200, "{form}: {reply:?}");
        answer(schema.0, reply.body.as_bytes()).expect("an answer");
        match lock(&bench.memory.heard).pop().expect("the service was asked") {
            Heard::Store(request, false) => {
                let path = format!("{}/{}", request.bucket, request.prefix);
                assert_eq!(
                    (Some(request.image_id.to_string()), path.trim_end_matches('/')),
                    (sent("ImageId"), sent("Bucket").expect("one").trim_end_matches('/'))
                );
                assert_eq!(
                    request.tags.len(),
                    pairs.iter().filter(|(name, _)| name.starts_with("S3ObjectTag.")).count()
                );
            }
            Heard::Tasks(query) => assert_eq!(
                query.image_ids.len(),
                pairs.iter().filter(|(name, _)| name.starts_with("ImageId.")).count()
            ),
            Heard::Restore(request, false) => {
                assert_eq!(
                    (Some(request.bucket), Some(request.object_key), request.name),
                    (sent("Bucket"), sent("ObjectKey"), sent("Name"))
                );
            }
            other => panic!("{form} became {other:?}"),
        }
    }
}

#[test]
fn whatever_comes_is_answered() {
    let bench = Bench::start();
    let mut random = Random(0xFACE);
    for _ in 0..1500 {
        let schema = SCHEMAS[random.below(3) as usize];
        let mut pairs = valid(&mut random, &schema);
        mutate(&mut random, &mut pairs);
        let mut form = encoded(pairs);
        if random.below(5) == 0 {
            // Not even a form.
            let at = (0..=random.below(form.len().max(1) as u64) as usize)
                .rev()
                .find(|at| form.is_char_boundary(*at))
                .unwrap_or(0);
            form.insert_str(at, pick(&mut random, &["%", "%zz", "&&", "=", "%ff", "+", ";"]));
        }
        let reply = bench.call(&form);
        assert!(reply.status < 500, "{form}: {reply:?}");
        if reply.status == 200 {
            answer(schema.0, reply.body.as_bytes())
                .unwrap_or_else(|error| panic!("{form}: {error:?}"));
        } else {
            let error = ServiceError::read(reply.status, reply.body.as_bytes());
            assert!(error.request_id.is_some() && !error.message.is_empty(), "{form}: {reply:?}");
        }
    }
}

#[test]
fn many_parameters_cost_little() {
    let bench = Bench::start();
    let began = std::time::Instant::now();
    for name in ["ImageId.{}", "Filter.{}.Name", "Filter.1.Value.{}", "X.{}", "Filter.{}.Value.{}"]
    {
        let pairs =
            (1..=9_900).map(|at: u32| (name.replace("{}", &at.to_string()), "x".to_owned()));
        let head = [
            ("Action".to_owned(), "DescribeStoreImageTasks".to_owned()),
            ("Version".to_owned(), "2016-11-15".to_owned()),
        ];
        let reply = bench.call(&encoded(head.into_iter().chain(pairs).collect()));
        assert_eq!(reply.status, 400, "{name}: {reply:?}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
}
