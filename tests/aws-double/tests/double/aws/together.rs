//! Servers with one endpoint: the scope of a signature chooses the Region, and the key the account.

use amistore_aws_double::aws::{Image, TestAws};

use super::client::{Client, outcome};

#[test]
fn one_endpoint_answers_for_each_region_and_account() {
    let here = TestAws::start();
    let there = TestAws::builder().region("ap-south-1").start();
    let others = TestAws::builder().region("ap-south-1").account("210987654321").start();
    others.add_key("AKIAOTHERS", "others", None);
    TestAws::together(&[&here, &there, &others]);
    for (aws, name) in [(&here, "here"), (&there, "there"), (&others, "others")] {
        aws.add_image(Image { name: name.into(), ..Image::default() });
    }
    let own = Client::new(&here);
    let abroad = Client { region: "ap-south-1".to_owned(), ..own.clone() };
    let theirs = Client {
        access_key: "AKIAOTHERS".to_owned(),
        secret_key: "others".to_owned(),
        ..abroad.clone()
    };
    for (client, name) in [(&own, "here"), (&abroad, "there"), (&theirs, "others")] {
        assert_eq!(client.ec2("DescribeImages", &[]).all("name"), [name]);
    }
    let counts = [&here, &there, &others].map(|aws| aws.count("DescribeImages"));
    assert_eq!(counts, [1, 1, 1], "each logs its own requests");
    // A Region without a server, a wrong secret, and a server alone.
    let nowhere = Client { region: "eu-west-1".to_owned(), ..own.clone() };
    assert_eq!(nowhere.ec2("DescribeImages", &[]).status, 401);
    let wrong = Client { secret_key: "wrong".to_owned(), ..abroad.clone() };
    assert_eq!(wrong.ec2("DescribeImages", &[]).outcome(), outcome(401, "AuthFailure"));
    let alone = TestAws::start();
    let client = Client { endpoint: alone.endpoint(), ..abroad };
    assert_eq!(client.ec2("DescribeImages", &[]).status, 401);
}
