#!/usr/bin/env python3
"""Whether Kubernetes knows what a manifest says: `pip install kubernetes-validate` first.

    gfn sweep submit DIR --engine kubernetes --image IMAGE --volume-claim CLAIM --print |
        python3 scripts/check_manifest.py

The manifest is held against the published schemas of every version from 1.29 on (before, indices had no
limits of retries of their own, or only behind a switch); keys that a schema does not have are errors.
"""

import sys

import kubernetes_validate
import yaml

FIRST = (1, 29)


def main():
    manifest = yaml.safe_load(sys.stdin)
    versions = kubernetes_validate.utils.all_versions()
    checked = []
    for version in versions:
        if tuple(map(int, version.split(".")[:2])) >= FIRST and version not in checked:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(map(str, error.path))
                sys.exit(f"Kubernetes {version}: {path}: {error.message}")
            checked.append(version)
    print(f"{manifest['kind']}: as Kubernetes {checked[0]} to {checked[-1]} have it")


if __name__ == "__main__":
    main()
