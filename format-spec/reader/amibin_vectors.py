"""Compares readers with the vectors that format-spec/vectors/README.md describes."""
import hashlib
import json
import os

from amibin_parts import BLOCK, ZEROS, Corrupt, Unsupported, sha256


class Collector:
    """Facts about each volume of a vector: digest of the raw volume and the block lists."""

    def __init__(self):
        self.volumes = []

    def begin(self, volume):
        self.hash, self.pos = (hashlib.sha256() if volume.size <= 1 << 30 else None), 0
        self.lists = {"data": [], "zero": [], "fill": []}

    def pad(self, to):
        while self.hash and self.pos < to:
            n = min(BLOCK, to - self.pos)
            self.hash.update(ZEROS[:n])
            self.pos += n

    def block(self, volume, index, kind, data):
        runs = self.lists[kind]
        if runs and sum(runs[-1]) == index:
            runs[-1][1] += 1
        else:
            runs.append([index, 1])
        self.pad(index * BLOCK)
        if self.hash:
            self.hash.update(data)
            self.pos += len(data)

    def end(self, volume):
        self.pad(volume.size)
        digest = self.hash.hexdigest() if self.hash else None
        self.volumes.append(dict(self.lists, name=volume.name, size=volume.size, sha256=digest))


def joined(items):
    """Block lists of a vector, as sorted runs that do not touch, independent of their notation."""
    out = []
    for first, count in sorted([item, 1] if type(item) is int else item for item in items):
        if out and sum(out[-1]) == first:
            out[-1][1] += count
        else:
            out.append([first, count])
    return out


def outcome_of(path, reader):
    with open(path, "rb") as file:
        sink = Collector()
        try:
            done = reader(file).read_all(sink)
        except (Corrupt, Unsupported) as error:
            return error.outcome, str(error)
        return "ok", {"root": done.root.hex(), "content_root": done.content_root.hex(),
                      "image_json_sha256": sha256(done.image_json).hex(), "volumes": sink.volumes}


def disagreement(want, outcome, got):
    """None, or the first difference between a vector and a reader."""
    if want.get("outcome") != outcome:
        return "is %s (%s), expected %s" % (outcome, got if outcome != "ok" else "no fault found", want.get("outcome"))
    if outcome != "ok":
        return None
    for name in ("root", "content_root", "image_json_sha256"):
        if want.get(name) != got[name]:
            return "%s is %s, expected %s" % (name, got[name], want.get(name))
    if len(want.get("volumes", ())) != len(got["volumes"]):
        return "has %d volumes" % len(got["volumes"])
    for i, (a, b) in enumerate(zip(want["volumes"], got["volumes"])):
        lists = {kind: joined(a.get(kind, [])) for kind in ("data", "zero", "fill")}
        # The text leaves open whether "zero" lists fill blocks too; both readings agree, as "fill"
        # is compared by itself.
        if lists["zero"] == joined(b["zero"] + b["fill"]):
            lists["zero"] = b["zero"]
        found = {kind: b[kind] for kind in lists}
        if (a.get("name"), a.get("size"), a.get("sha256")) != (b["name"], b["size"], b["sha256"]) or lists != found:
            return "volume %d is %s" % (i, json.dumps(b)[:500])
    return None


def run(folder, readers):
    stems = sorted({name.rsplit(".", 1)[0] for name in os.listdir(folder) if name.endswith((".bin", ".json"))})
    failed = not stems
    for stem in stems:
        base, faults, why = os.path.join(folder, stem), [], ""
        if not (os.path.isfile(base + ".bin") and os.path.isfile(base + ".json")):
            faults.append("one of the two files is missing")
        else:
            with open(base + ".json", encoding="utf-8") as file:
                want = json.load(file)
            for reader in readers:
                outcome, got = outcome_of(base + ".bin", reader)
                fault = disagreement(want, outcome, got)
                if fault:
                    faults.append("%s: %s" % (reader.__name__.lower(), fault))
                why = outcome if outcome == "ok" else "%s (%s)" % (outcome, got)
        print("%s %s: %s" % ("FAIL" if faults else "ok  ", stem, "; ".join(faults) or why))
        failed = failed or bool(faults)
    if not stems:
        print("no vectors in %s" % folder)
    return 1 if failed else 0
