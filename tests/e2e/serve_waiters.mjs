// A script for AWS's SDK of JavaScript: it stores an image, waits, restores it, waits.
// The SDK is in the directory $CLIENT_EC2; its endpoint is that of the environment.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CLIENT_EC2}/package.json`);
const sdk = require(process.env.CLIENT_EC2);
const [image, bucket, name] = process.argv.slice(2);
const client = new sdk.EC2Client({});
const waiting = { client, maxWaitTime: 120, minDelay: 1, maxDelay: 2 };

const { ObjectKey } = await client.send(new sdk.CreateStoreImageTaskCommand({ ImageId: image, Bucket: bucket }));
const stored = await sdk.waitUntilStoreImageTaskComplete(waiting, { ImageIds: [image] });
const { ImageId } = await client.send(
  new sdk.CreateRestoreImageTaskCommand({ Bucket: bucket, ObjectKey, Name: name }),
);
const restored = await sdk.waitUntilImageAvailable(waiting, { ImageIds: [ImageId] });
const { Images } = await client.send(new sdk.DescribeImagesCommand({ Filters: [{ Name: "name", Values: [name] }] }));
if (Images.length !== 1 || Images[0].ImageId !== ImageId) {
  throw new Error(`the name finds ${Images.map((found) => found.ImageId)}, and not ${ImageId}`);
}
const state = [stored.state, restored.state].join(" ");
if (state !== "SUCCESS SUCCESS") throw new Error(state);
console.log(`${ImageId} ${state}`);
