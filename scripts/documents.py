#!/usr/bin/env python3
"""The documents of a release: SBOM, licenses, provenance; and the checks of them. Called by scripts/release.

Nothing here reads a clock or the network: the same sources and tools give the same bytes.
"""
import argparse
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

TARGETS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
# As ring's build.rs calls the architecture, and the ending of the assembly that it takes.
RING = {"amd64": ("X86_64", "elf"), "arm64": ("AARCH64", "linux64")}
# Of what is linked in beside the crates.
STD_LICENSE = "MIT OR Apache-2.0"
PARTS = {
    "libc.a": ("glibc", "LGPL-2.1-or-later", "The C library, linked statically"),
    "libgcc_eh.a": ("libgcc", "GPL-3.0-or-later WITH GCC-exception-3.1", "Unwinding, and what the compiler calls"),
}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write(path, document):
    Path(path).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


# ------------------------------------------------------------------ what cargo says


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def tree(target, edges):
    """Lines of cargo tree: depth, crate as "NAME VERSION", features."""
    lines = run("cargo", "tree", "--locked", "--target", target, "--edges", edges, "--prefix", "depth", "--no-dedupe", "--format", "|{p}|{f}")
    for line in lines.splitlines():
        depth, crate, features = line.split("|")
        name, version = crate.split()[:2]
        yield int(depth), f"{name} {version.removeprefix('v')}", [feature for feature in features.split(",") if feature]


class Crates:
    """The crates of the program for one architecture, and those that only run while it is built."""

    def __init__(self, arch):
        target = TARGETS[arch]
        self.linked, self.needs, above = {}, {}, []
        for depth, crate, features in tree(target, "normal,no-proc-macro"):
            above[depth:] = [crate]
            self.linked[crate] = features
            self.needs.setdefault(crate, set())
            if depth:
                self.needs[above[depth - 1]].add(crate)
        self.root = above[0]
        del self.linked[self.root]
        everything = {crate for _, crate, _ in tree(target, "normal,build")}
        self.building = sorted(everything - set(self.linked) - {self.root})
        metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
        self.about = {f"{package['name']} {package['version']}": package for package in metadata["packages"]}
        lock = tomllib.loads(Path("Cargo.lock").read_text())
        self.checksum = {f"{package['name']} {package['version']}": package.get("checksum") for package in lock["package"]}

    def folder(self, crate):
        return Path(self.about[crate]["manifest_path"]).parent

    def license(self, crate):
        # Old manifests write MIT/Apache-2.0.
        return self.about[crate]["license"].replace("/", " OR ")


def purl(crate):
    name, version = crate.split()
    return f"pkg:cargo/{name}@{version}"


def compiled(path, target):
    """The crates that cargo has compiled for the target, with features, from its messages."""
    found = {}
    for line in Path(path).read_text().splitlines():
        message = json.loads(line)
        is_linked = any(f"/{target}/release/deps/" in name for name in message.get("filenames", []))
        if message["reason"] == "compiler-artifact" and is_linked and message["target"]["kind"] != ["bin"]:
            name, version = re.search(r"([^/#@]+)[#@]([^#@]+)$", message["package_id"]).groups()
            found[f"{name} {version}"] = message["features"]
    return found


# ------------------------------------------------------------------- the C in ring


def ring_files(folder, arch):
    """The C and assembly that ring's build.rs compiles for the architecture."""
    script = (folder / "build.rs").read_text()
    names = dict(re.findall(r'const (\w+): &str = "([^"]+)";', script))
    table = script[script.index("const RING_SRCS") :]
    table = table[: table.index("];")]
    own, ending = RING[arch]
    files = []
    for arches, source, constant in re.findall(r'\(&\[([A-Z0-9_, ]*)\], (?:"([^"]+)"|(\w+))\)', table):
        if arches and own not in arches.split(", "):
            continue
        source = source or names[constant]
        # SHA-256 and SHA-512 are generated from one script.
        for source in [source, source.replace("sha512", "sha256")] if "sha512" in source else [source]:
            is_generated = source.endswith(".pl")
            files.append(f"pregenerated/{Path(source).stem}-{ending}.S" if is_generated else source)
    assert len(files) > 20 and all((folder / file).is_file() for file in files), "ring's build.rs is not as it was"
    return sorted(files)


def included(folder, files):
    """The files of ring that these include, and so on. Those for 32 bits and for another compiler are left out."""
    found, open_files = set(files), list(files)
    while open_files:
        file = open_files.pop()
        for name in re.findall(r'#\s*include\s+["<]([^">]+)[">]', (folder / file).read_text()):
            for base in [Path(file).parent, Path("include"), Path()]:
                path = os.path.normpath(base / name)
                if (folder / path).is_file() and path not in found and not re.search(r"_32\.h|_msvc\.h", path):
                    found.add(path)
                    open_files.append(path)
    return sorted(found)


def ring_parts(crate, folder, arch):
    """Nested components of ring: where its C and assembly come from, file by file."""
    parts = {}
    for file in included(folder, ring_files(folder, arch)):
        # Generated files name BoringSSL and no license: LICENSE-BoringSSL.
        head = (folder / file).read_text()[:2000]
        if file.startswith("third_party/fiat/"):
            part = ("fiat-crypto", "Apache-2.0", "pkg:github/mit-plv/fiat-crypto")
        elif "Licensed under the Apache License" in head or file.startswith("pregenerated/"):
            part = ("BoringSSL", "Apache-2.0", "pkg:github/google/boringssl")
        else:
            assert "Permission to use, copy, modify, and/or distribute" in head, f"ring: {file} has an unknown license"
            part = ("BoringSSL and ring, ISC", "ISC", "pkg:github/briansmith/ring")
        parts.setdefault(part, []).append(file)
    return [
        {
            "type": "library",
            "bom-ref": f"{purl(crate)}#{name}",
            "name": name,
            "description": "C and assembly that ring's build script compiles; ring does not say which commit it is from",
            "licenses": [{"expression": license}],
            "pedigree": {"ancestors": [{"type": "library", "name": name, "purl": origin}]},
            "components": [
                {"type": "file", "bom-ref": f"{purl(crate)}#{file}", "name": file, "hashes": hashes(sha256((folder / file).read_bytes()))}
                for file in files
            ],
        }
        for (name, license, origin), files in sorted(parts.items())
    ]


def check_objects(out, arch, folder):
    """What ring's build script has really compiled is what the SBOM says."""
    made = {re.sub(r"^[0-9a-f]+-|\.o$", "", name) for name in os.listdir(out) if name.endswith(".o")} - {"constant_time_test"}
    listed = {Path(file).stem for file in ring_files(folder, arch)}
    assert made == listed, f"ring: compiled, but not in the SBOM, or the other way round: {sorted(made ^ listed)}"


# --------------------------------------------------------------------- documents


def hashes(digest):
    return [{"alg": "SHA-256", "content": digest}]


def toolchain(path):
    """What scripts/static has noted: facts by name."""
    facts = {}
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(" ")
        facts.setdefault(name, []).append(value)
    return facts


def linked_parts(facts):
    """Components for the standard library and the C libraries."""
    packages = {}
    for line in facts["package"]:
        part, _, package = line.partition(" ")
        packages[part] = package.split()

    def debian(part):
        name, version, arch = packages[part]
        return f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace('~', '%7E').replace(':', '%3A')}?arch={arch}"

    release = facts["rustc-release"][0]
    std = {
        "type": "library",
        "bom-ref": "rust-std",
        "name": "rust-std",
        "version": packages["std"][1] if "std" in packages else release,
        "description": f"Rust's standard library, release {release}, commit {facts['rustc-commit-hash'][0]}; the versions of its crates are in that release's library/Cargo.lock",
        "licenses": [{"expression": STD_LICENSE}],
        "purl": debian("std") if "std" in packages else f"pkg:generic/rust-std@{release}",
        "components": [{"type": "library", "bom-ref": f"rust-std#{name}", "name": name} for name in facts["std-crate"]],
    }
    parts = [std]
    for part, (name, license, description) in PARTS.items():
        component = {"type": "library", "bom-ref": name, "name": name, "description": f"{description} ({part})", "licenses": [{"expression": license}]}
        if part in packages:
            component |= {"version": packages[part][1], "purl": debian(part)}
        parts.append(component)
    return parts


def crate_component(crates, crate, scope):
    name, version = crate.split()
    about = crates.about[crate]
    component = {
        "type": "library",
        "bom-ref": purl(crate),
        "name": name,
        "version": version,
        "scope": scope,
        "hashes": hashes(crates.checksum[crate]),
        "licenses": [{"expression": crates.license(crate)}],
        "purl": purl(crate),
    }
    if about["description"]:
        component["description"] = " ".join(about["description"].split())
    if about["repository"]:
        component["externalReferences"] = [{"type": "vcs", "url": about["repository"]}]
    if crates.linked.get(crate) and scope == "required":
        component["properties"] = [{"name": "cargo:features", "value": ",".join(crates.linked[crate])}]
    return component


def make_sbom(arguments):
    crates, facts = Crates(arguments.arch), toolchain(arguments.built + ".toolchain")
    built = compiled(arguments.built + ".crates", TARGETS[arguments.arch])
    # The program's own library is one of them.
    built.pop(crates.root, None)
    for crate in sorted(set(built) | set(crates.linked)):
        assert sorted(built.get(crate, [])) == sorted(crates.linked.get(crate, ["none"])), f"{crate}: cargo tree and what was compiled differ"
    ring = next(crate for crate in crates.linked if crate.startswith("ring "))
    for out in Path(arguments.built).parent.glob("build/ring-*/out"):
        if any(out.glob("*.o")):
            check_objects(out, arguments.arch, crates.folder(ring))
    components = [crate_component(crates, crate, "required") for crate in sorted(crates.linked)]
    next(component for component in components if component["name"] == "ring")["components"] = ring_parts(ring, crates.folder(ring), arguments.arch)
    parts = linked_parts(facts)
    components += parts + [crate_component(crates, crate, "excluded") for crate in crates.building]
    digest = sha256(Path(arguments.program).read_bytes())
    name, version = crates.root.split()
    root = f"{name}-{arguments.arch}"
    needs = [{"ref": root, "dependsOn": sorted(map(purl, crates.needs[crates.root])) + [part["bom-ref"] for part in parts]}]
    needs += [{"ref": purl(crate), "dependsOn": sorted(map(purl, crates.needs[crate]))} for crate in sorted(crates.linked)]
    write(
        arguments.output,
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
            "version": 1,
            "metadata": {
                "timestamp": arguments.time,
                "component": {
                    "type": "application",
                    "bom-ref": root,
                    "name": name,
                    "version": version,
                    "description": f"The program for linux/{arguments.arch}",
                    "hashes": hashes(digest),
                    "licenses": [{"expression": crates.about[crates.root]["license"]}],
                },
            },
            "components": components,
            "dependencies": needs,
        },
    )


LICENSE_FILES = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)", re.IGNORECASE)


def texts_of(folder):
    """The license texts that a crate ships, by path in it."""
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and LICENSE_FILES.match(file.name) and file.suffix != ".rs"
    }


def make_licenses(arguments):
    """SPDX 2.3 in its text form: one package for each crate and part, with the texts that it ships."""
    entries = {}  # what it is called: (license, texts, checksum, purl)
    for arch in TARGETS:
        crates, built = Crates(arch), getattr(arguments, arch)
        for crate in crates.linked:
            texts = texts_of(crates.folder(crate))
            assert texts, f"{crate} ships no license text"
            entries[crate] = (crates.license(crate), texts, crates.checksum[crate], purl(crate))
        notices = {file.name: file.read_text() for file in sorted(Path(built + ".notices").iterdir())}
        for part, component in zip(["std", *PARTS], linked_parts(toolchain(built + ".toolchain"))):
            texts = {name: notices[name] for name in [part] if name in notices}
            # Debian's file names these two instead of repeating them.
            texts |= {name: notices[name] for name in {"libc.a": ["LGPL-2.1"], "libgcc_eh.a": ["GPL-3"]}.get(part, []) if name in notices}
            crate = f"{component['name']}-{arch} {component.get('version', '')}".strip()
            entries[crate] = (component["licenses"][0]["expression"], texts, None, component.get("purl"))
    own = Path(crates.folder(crates.root), "LICENSE").read_text()
    entries[crates.root] = (crates.about[crates.root]["license"], {"LICENSE": own}, None, None)

    def identifier(crate):
        return "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.]", "-", crate)

    packages, shared = [], {}
    for crate, (license, texts, checksum, locator) in sorted(entries.items()):
        name, _, version = crate.partition(" ")
        references = []
        for file, text in texts.items():
            reference = f"LicenseRef-{sha256(text.encode())[:16]}"
            shared.setdefault(reference, (text, []))[1].append(f"{file} of {crate}")
            references.append(f"{file} is {reference}")
        copyrights = sorted({line.strip(" /*#") for text in texts.values() for line in text.splitlines() if re.match(r"[ /*#]*Copyright (\(c\)|©|[12])", line, re.I)})
        lines = [f"PackageName: {name}", f"SPDXID: {identifier(crate)}"]
        lines += [f"PackageVersion: {version}"] if version else []
        lines += ["PackageDownloadLocation: NOASSERTION", "FilesAnalyzed: false"]
        lines += [f"PackageChecksum: SHA256: {checksum}"] if checksum else []
        lines += ["PackageLicenseConcluded: NOASSERTION", f"PackageLicenseDeclared: {license}"]
        lines += [f"PackageLicenseComments: <text>{'; '.join(references) or 'no text on the machine that built it'}</text>"]
        lines += [f"PackageCopyrightText: <text>{chr(10).join(copyrights)}</text>" if copyrights else "PackageCopyrightText: NOASSERTION"]
        lines += [f"ExternalRef: PACKAGE-MANAGER purl {locator}"] if locator else []
        packages.append("\n".join(lines))
    root = identifier(crates.root)
    relations = [f"Relationship: SPDXRef-DOCUMENT DESCRIBES {root}"]
    relations += [f"Relationship: {root} STATIC_LINK {identifier(crate)}" for crate in sorted(entries) if crate != crates.root]
    extracted = []
    for reference, (text, places) in sorted(shared.items()):
        extracted.append(f"LicenseID: {reference}\nExtractedText: <text>{text.replace('</text>', '')}</text>\nLicenseName: {places[0]}\nLicenseComment: <text>{'; '.join(places)}</text>")
    body = "\n\n".join([*packages, "\n".join(relations), *extracted]) + "\n"
    title = crates.root.replace(" ", "-")
    head = [
        "SPDXVersion: SPDX-2.3",
        "DataLicense: CC0-1.0",
        "SPDXID: SPDXRef-DOCUMENT",
        f"DocumentName: {title}",
        f"DocumentNamespace: https://quarks.cloudfoundry.org/spdx/{title}-{sha256(body.encode())}",
        "Creator: Tool: quarks-job-scripts-release",
        f"Created: {arguments.time}",
    ]
    Path(arguments.output).write_text("\n".join(head) + "\n\n" + body)


def make_provenance(arguments):
    """An in-toto statement: which files came from which sources, by which tools."""
    builds = {arch: toolchain(getattr(arguments, arch) + ".toolchain") for arch in TARGETS}
    for facts in builds.values():
        del facts["std-crate"]
    subjects = [Path(arguments.folder, name) for name in sorted(os.listdir(arguments.folder))]
    write(
        arguments.output,
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": file.name, "digest": {"sha256": sha256(file.read_bytes())}} for file in subjects],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": "https://quarks.cloudfoundry.org/quarks-job/scripts/release/v1",
                    "externalParameters": {"version": arguments.version, "image": arguments.image},
                    "internalParameters": {
                        "toolchains": {arch: {name: values if name == "package" else values[0] for name, values in facts.items()} for arch, facts in builds.items()},
                        "buildah": arguments.buildah,
                    },
                    "resolvedDependencies": [
                        {"name": "source", "uri": "git+quarks-job", "digest": {"gitCommit": arguments.commit, "gitTree": arguments.tree}},
                        {"name": "Cargo.lock", "uri": "git+quarks-job#Cargo.lock", "digest": {"sha256": sha256(Path("Cargo.lock").read_bytes())}},
                    ],
                },
                "runDetails": {"builder": {"id": "https://quarks.cloudfoundry.org/quarks-job/scripts/release"}},
            },
        },
    )


# ------------------------------------------------------------------------ checks


def check_sums(arguments):
    """Every file of the folder is in SHA256SUMS with its sum, and the other way round; the signature is written as minisign writes it."""
    folder = Path(arguments.folder)
    unsigned = {"SHA256SUMS", "SHA256SUMS.minisig"}
    sums, others = {}, []
    for line in (folder / "SHA256SUMS").read_bytes().decode(errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if match and match[2] not in sums:
            sums[match[2]] = match[1]
        else:
            others.append(line)
    if others:
        yield f"SHA256SUMS: {len(others)} line(s) that sha256sum does not write, or a file twice; the first: {others[0][:100]!r}"
    there = {file.name: file for file in folder.iterdir()}
    for name in sorted(set(sums) | set(there) - unsigned):
        if name not in there:
            yield f"{name}: missing"
        elif name not in sums:
            yield f"{name}: not in SHA256SUMS"
        elif there[name].is_symlink() or not there[name].is_file():
            yield f"{name}: not a file"
        else:
            try:
                is_same = sha256(there[name].read_bytes()) == sums[name]
            except OSError as error:
                yield f"{name}: cannot be read: {error.strerror}"
                continue
            if not is_same:
                yield f"{name}: not the file that SHA256SUMS names: other bytes"
    signature = folder / "SHA256SUMS.minisig"
    # minisign itself takes any first line, and some ways to write the same bytes.
    if os.access(signature, os.R_OK) and signature.read_bytes() != canonical(signature.read_bytes()):
        yield "SHA256SUMS.minisig: not as scripts/release writes it"


def canonical(signature):
    """The signature file with these contents as scripts/release would have it."""
    try:
        _, key, comment, whole, end = signature.split(b"\n")
        lines = [b"untrusted comment: " + comment.removeprefix(b"trusted comment: "), recode(key), comment, recode(whole), end]
        return b"\n".join(lines)
    except ValueError:
        return None


def recode(line):
    return base64.b64encode(base64.b64decode(line, validate=True))


def check_provenance(arguments):
    """The statement against the files of the folder."""
    folder = Path(arguments.folder)
    statement = json.loads((folder / arguments.name).read_text())
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    files = {file.name: sha256(file.read_bytes()) for file in folder.iterdir()}
    for name in ["SHA256SUMS", "SHA256SUMS.minisig", arguments.name]:
        files.pop(name, None)
    for name in sorted(set(subjects) | set(files)):
        if subjects.get(name) != files.get(name):
            yield f"{arguments.name}: {name} is not the file that it names"
    definition = statement["predicate"]["buildDefinition"]
    digests = {part["name"]: part["digest"] for part in definition["resolvedDependencies"]}
    if digests["Cargo.lock"]["sha256"] != sha256(Path("Cargo.lock").read_bytes()):
        yield f"{arguments.name}: another Cargo.lock than that of the commit"
    if digests["source"]["gitTree"] != arguments.tree:
        yield f"{arguments.name}: another tree than that of the commit"
    # Before anything relies on it.
    tools(statement)


def check_sbom(arguments):
    """The SBOM against Cargo.lock and what cargo resolves for the architecture, in both directions."""
    crates, name = Crates(arguments.arch), Path(arguments.sbom).name
    document = json.loads(Path(arguments.sbom).read_text())
    expected = {crate: "required" for crate in crates.linked} | {crate: "excluded" for crate in crates.building}
    listed = {f"{part['name']} {part['version']}": part for part in document["components"] if part.get("purl", "").startswith("pkg:cargo/")}
    for crate in sorted(set(expected) - set(listed)):
        yield f"{name}: {crate} is in the program by Cargo.lock, and not listed"
    for crate, part in sorted(listed.items()):
        if crate not in crates.checksum:
            yield f"{name}: {crate} is listed, and not in Cargo.lock"
        elif crate not in expected:
            yield f"{name}: {crate} is listed, and not in the program for {arguments.arch}"
        elif part != part | crate_component(crates, crate, expected[crate]):
            yield f"{name}: {crate} is not as Cargo.lock and its manifest have it: checksum, license, features or scope"


def tools(statement):
    """The tools that a provenance names, as lines of text by name."""
    parameters = statement["predicate"]["buildDefinition"]["internalParameters"]
    named = {f"{arch} {name}": value for arch in TARGETS for name, value in parameters["toolchains"][arch].items()}
    # The packages, one by one.
    for name in [f"{arch} package" for arch in TARGETS]:
        named |= {f"{name} {part}": version for part, version in (line.split(" ", 1) for line in named.pop(name))}
    named["buildah"] = parameters["buildah"]
    if not all(isinstance(value, str) and value.isprintable() for value in named.values()):
        raise ValueError("a tool")
    return named


def check_tools(arguments):
    """What of the compilers, linkers and libraries here is not as the provenance has it, in one line."""
    theirs, here = tools(json.loads(Path(arguments.provenance).read_text())), {}
    for arch in TARGETS:
        for name, values in toolchain(getattr(arguments, arch)).items():
            if name == "package":
                here |= {f"{arch} {name} {part}": version for part, version in (line.split(" ", 1) for line in values)}
            # The flags and the crates come with the commit.
            elif name not in ["flags", "std-crate"]:
                here[f"{arch} {name}"] = values[0]
    del theirs["buildah"]
    names = sorted(name for name in set(theirs) | set(here) if theirs.get(name) != here.get(name) and not name.endswith(" flags"))
    if names:
        yield "; ".join(f"{name} {theirs.get(name, 'none')} (here {here.get(name, 'none')})" for name in names)


def compare_toolchains(arguments):
    """Why the bytes may differ: the tools of two provenances."""
    theirs, here = (tools(json.loads(Path(path).read_text())) for path in [arguments.theirs, arguments.here])
    for name in sorted(set(theirs) | set(here)):
        if theirs.get(name) != here.get(name):
            yield f"note: {name}: {theirs.get(name)} in the release, {here.get(name)} here"


def facts(arguments):
    """What the provenance says that scripts/release needs: commit, version, image."""
    definition = json.loads(Path(arguments.provenance).read_text())["predicate"]["buildDefinition"]
    source = next(part for part in definition["resolvedDependencies"] if part["name"] == "source")
    values = [source["digest"]["gitCommit"], definition["externalParameters"]["version"], definition["externalParameters"]["image"]]
    if not all(re.fullmatch(pattern, value) for pattern, value in zip(["[0-9a-f]{40}", "[0-9A-Za-z.+-]+", "[0-9A-Za-z._:/-]+"], values)):
        raise ValueError("commit, version or image")
    yield " ".join(values)


# What each command does, and its arguments.
COMMANDS = {
    "sbom": (make_sbom, ["arch", "program", "built", "time", "output"]),
    "licenses": (make_licenses, ["amd64", "arm64", "time", "output"]),
    "provenance": (make_provenance, ["folder", "amd64", "arm64", "version", "image", "commit", "tree", "buildah", "output"]),
    "facts": (facts, ["provenance"]),
    "check-sums": (check_sums, ["folder"]),
    "check-provenance": (check_provenance, ["folder", "name", "tree"]),
    "check-sbom": (check_sbom, ["arch", "sbom"]),
    "check-tools": (check_tools, ["provenance", "amd64", "arm64"]),
    "compare-toolchains": (compare_toolchains, ["theirs", "here"]),
}


def subject(arguments):
    """What a command is about: the document that it reads, or its own name."""
    return next((Path(path).name for path in (getattr(arguments, name, None) for name in ["sbom", "name", "provenance", "theirs"]) if path), arguments.command)


def reason(error):
    """An error in one short line."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(error.cmd[:2])} failed with exit code {error.returncode}"
    if isinstance(error, AssertionError):
        return str(error)
    what = f"no field {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
    return f"not as scripts/release writes it: {what}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (function, values) in COMMANDS.items():
        command = commands.add_parser(name, help=function.__doc__)
        for value in values:
            command.add_argument(f"--{value}", required=True)
    arguments = parser.parse_args()
    try:
        lines, is_wrong = list(COMMANDS[arguments.command][0](arguments) or []), arguments.command.startswith("check-")
    except (AssertionError, AttributeError, KeyError, OSError, StopIteration, subprocess.CalledProcessError, TypeError, ValueError) as error:
        # A document that is not of the form that it should have, too.
        lines, is_wrong = [f"{subject(arguments)}: {reason(error)}"], True
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines and is_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
