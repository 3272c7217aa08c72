#!/usr/bin/env bash
# Debian packages whose tools the tests use, as judges of DICOM output, to compile stubs and examples, and to count
# instructions; installs those that are missing.
set -euo pipefail
declare -A package_of=([dciodvfy]=dicom3tools [dcmdump]=dcmtk [dcm2niix]=dcm2niix [gdcmconv]=libgdcm-tools [gcc]=gcc [g++]=g++ [valgrind]=valgrind)
missing=()
for tool in "${!package_of[@]}"; do
  command -v "$tool" >/dev/null || missing+=("${package_of[$tool]}")
done
[ "${#missing[@]}" -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "The tests need these tools, please install them: ${missing[*]}" >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
