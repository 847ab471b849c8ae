#!/bin/sh
# sbom.sh [FOLDER]: the Python packages in /opt/venv, and in FOLDER, as /opt/venv/sbom.cdx.json.
# The tool that lists them has an environment of its own, hashes checked; pip is set up by who calls this.
set -eu
python3 -m venv /tmp/sbom
/tmp/sbom/bin/python -m pip install -q --no-deps --require-hashes --only-binary :all: -r /build/locks/sbom.txt
printf '#!/bin/sh\nPYTHONPATH=%s exec /opt/venv/bin/python "$@"\n' "${1:-}" >/tmp/sbom/listed
chmod +x /tmp/sbom/listed
/tmp/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o /opt/venv/sbom.cdx.json /tmp/sbom/listed
rm -rf /tmp/sbom
