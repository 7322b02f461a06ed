# shellcheck shell=bash disable=SC2034,SC2154
# What it takes to compile for a board: sourced by cross/build and cross/test, which set `target`
# and `tool` (their own names, for errors). Installs what lacks, and leaves `rust`, `runner` and the
# environment that cargo and the C compilers read.

# std for these targets is there for this version, with no promise for later ones. A
# rust-toolchain.toml would make all who only test install a second toolchain beside their stable.
rust=1.95.0
case $target in
aarch64-unknown-linux-musl)
  linker=aarch64-linux-musl-gcc
  { dpkg --print-architecture && dpkg --print-foreign-architectures; } | grep -x arm64 >/dev/null ||
    $([ "$(id -u)" -eq 0 ] || echo sudo) dpkg --add-architecture arm64
  packages=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross musl-dev:arm64)
  runner=(qemu-aarch64-static)
  ;;
armv7-unknown-linux-gnueabihf)
  linker=arm-linux-gnueabihf-gcc
  packages=(gcc-arm-linux-gnueabihf libc6-dev-armhf-cross)
  runner=(qemu-arm-static -cpu cortex-a7 -L /usr/arm-linux-gnueabihf)
  ;;
x86_64-unknown-linux-gnu)
  linker=x86_64-linux-gnu-gcc
  packages=(gcc libc6-dev)
  runner=(env)
  ;;
arm-* | armv5* | armv6* | thumb*)
  echo "$tool: $target: ARMv6 and older (Raspberry Pi 1, Zero, Zero W) are not supported;" \
    "32-bit boards from ARMv7 on: armv7-unknown-linux-gnueabihf" >&2
  exit 2
  ;;
*)
  echo "$tool: ${target:-no target}: TARGET is aarch64-unknown-linux-musl," \
    "armv7-unknown-linux-gnueabihf or x86_64-unknown-linux-gnu" >&2
  exit 2
  ;;
esac

command -v rustup >/dev/null || {
  echo "$tool: needs rustup, for Rust $rust with $target: https://rustup.rs" >&2
  exit 1
}
tests/install binutils "${packages[@]}"
rustup toolchain list | grep "^$rust-" >/dev/null ||
  rustup toolchain install "$rust" --profile minimal >&2
rustup target list --toolchain "$rust" --installed | grep -x "$target" >/dev/null ||
  rustup target add --toolchain "$rust" "$target" >&2

# What names this machine or this moment stays out of the binary.
root=$PWD
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTUP_TOOLCHAIN=$rust SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export RUSTFLAGS="--remap-path-prefix=$root=/tidegate --remap-path-prefix=$cargo_home=/cargo"
underscored=${target//-/_}
export "CFLAGS_$underscored=-ffile-prefix-map=$root=/tidegate -ffile-prefix-map=$cargo_home=/cargo"
export "CARGO_TARGET_${underscored^^}_LINKER=$linker"
