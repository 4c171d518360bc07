"""Launch scripts with stub commands on the PATH: what they run, and that a failure ends them."""

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = (
    *("bash", "sh", "git", "hostname", "tail", "cut", "cat", "dirname", "sleep", "seq", "rm"),
    *("mkdir", "touch", "env", "cp", "mv", "sed", "uname", "date"),
)

# An interpreter of any version. It makes environments of itself, and writes down what it is to run.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
  *version_info*) exit $((VERSION < 11)) ;;
  -V) echo "Python 3.VERSION.0" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip --version") [ ! -e "$(dirname "$0")/no_pip" ] ;;
  "-m ensurepip "*)
    [ ! -e "$(dirname "$0")/no_ensurepip" ] && rm "$(dirname "$0")/no_pip" && echo "$*" >>"$CALLS"
    ;;
  *"--user uv") mkdir -p "$HOME/.local/bin" && cp "$UV" "$HOME/.local/bin/uv" ;;
  "-m pip install "*) echo "$*" >>"$CALLS"; [ -z "${PIP_FAILS:-}" ] ;;
  "- "*) cat >/dev/null; echo "$(dirname "$0")/stamp" ;;
  *) printf '%s\n' "$0" "$@" "in $(git rev-parse HEAD 2>/dev/null)" >>"$CALLS" ;;
esac
"""
UV = r"""#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
mkdir -p .venv/bin
cp "$NEW_PYTHON" .venv/bin/python
"""
# Writes down its arguments, and does what it is asked to, as one worker would.
GCLOUD = r"""#!/usr/bin/env bash
printf '%s\0' "$@" >>"$GCLOUD_CALLS"
printf '\n' >>"$GCLOUD_CALLS"
case "$*" in
  *" describe "*)
    read -r state rest <<<"$(cat "$STATES")"
    [ -z "$rest" ] || echo "$rest" >"$STATES"
    [ "$state" != none ] || exit 1
    echo "$state"
    ;;
  *" create "*) [ -z "${EXISTS:-}" ] || exit 1 ;;
esac
for argument; do
  case "$argument" in
    --command=*) cd "$HOME" && exec sh -c "${argument#--command=}" ;;
  esac
done
"""


class Machine:
    """A directory of programs, and a home."""

    def __init__(self, root: Path) -> None:
        self.bin, self.home, self.calls = root / "bin", root / "home", root / "calls"
        self.gcloud_calls, self.states = root / "gcloud_calls", root / "states"
        self.bin.mkdir()
        self.home.mkdir()
        for tool in TOOLS:
            found = next(p for p in (Path("/usr/bin"), Path("/bin")) if (p / tool).exists())
            (self.bin / tool).symlink_to(found / tool)
        self.uv = self.program(root / "uv", UV)
        self.new_python = self.program(root / "new_python", PYTHON.replace("VERSION", "12"))
        self.python("python3", 12)

    def program(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name: str, version: int, directory: Path | None = None) -> Path:
        path = (directory or self.bin) / name
        return self.program(path, PYTHON.replace("VERSION", str(version)))

    def run(self, *command: str | Path, cwd: Path, **variables: str):
        environment = {
            **{"PATH": str(self.bin), "HOME": str(self.home), "CALLS": str(self.calls)},
            **{"UV": str(self.uv), "NEW_PYTHON": str(self.new_python)},
            **{"GCLOUD_CALLS": str(self.gcloud_calls), "STATES": str(self.states)},
            **{"GIT_CONFIG_NOSYSTEM": "1", "POLL_SECONDS": "0"},
        }
        return subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def called(self) -> str:
        return self.calls.read_text() if self.calls.exists() else ""

    @property
    def gcloud(self) -> list[list[str]]:
        lines = self.gcloud_calls.read_text().split("\0\n")[:-1]
        return [line.split("\0") for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.program(machine.bin / "gcloud", GCLOUD)
    return machine


def copy_launch(target: Path) -> Path:
    (target / "launch").mkdir(parents=True)
    for script in (ROOT / "launch").glob("*.sh"):
        (target / "launch" / script.name).write_bytes(script.read_bytes())
    for name in ("", "-tpu", "-gcs", "-s3"):
        (target / f"requirements{name}.txt").write_text("jax\n")
    return target


def git(directory: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b"]
    made = subprocess.run(
        ["git", *names, *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return made.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> dict[str, str]:
    """Three commits: a tag on the first, `main` on the second, a branch on the third."""
    root = copy_launch(tmp_path / "repository")
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(root))
    git(root, "config", "uploadpack.allowReachableSHA1InWant", "true")
    commits = []
    for number in range(3):
        if number == 2:
            git(root, "checkout", "--quiet", "-b", "new/thing")
        (root / "number").write_text(str(number))
        git(root, "add", ".")
        git(root, "commit", "--quiet", "-m", str(number))
        commits.append(git(root, "rev-parse", "HEAD"))
    git(root, "tag", "v1", commits[0])
    git(root, "checkout", "--quiet", "main")
    names = {"path": str(root), "v1": commits[0], "main": commits[1], "new/thing": commits[2]}
    return names | {commits[0]: commits[0]}


def pod(machine: Machine, repository: dict[str, str], *arguments: str, **variables: str):
    named = {"TPU": "t", "ZONE": "z", "REPO": repository["path"]} | variables
    named = {name: value for name, value in named.items() if value}
    return machine.run("bash", ROOT / "launch/tpu_pod.sh", *arguments, cwd=ROOT, **named)


def test_a_pod_installs_what_urls_need(machine: Machine, repository: dict[str, str]) -> None:
    made = pod(machine, repository, "--workdir=gs://b/a", "--config.data.path=s3://b/c")
    assert made.returncode == 0, made.stderr
    files = [f"-r requirements{name}.txt" for name in ("", "-tpu", "-gcs", "-s3")]
    assert " ".join(files) + "\n" in machine.called


ARGUMENTS = ["--config=configs/dit_dino.py", "a b", "$(touch x); it's", "", "*"]


@pytest.mark.parametrize("ref", ["main", "new/thing", "v1", "commit", "short"])
def test_a_pod_runs_the_branch_tag_or_commit_with_the_arguments_as_given(
    machine: Machine, repository: dict[str, str], ref: str
) -> None:
    expected = repository["v1" if ref in ("commit", "short") else ref]
    given = {"commit": expected, "short": expected[:7]}.get(ref, ref)
    installs: list[str] = []
    for _ in range(2):  # the second time it is there, and installed
        machine.calls.unlink(missing_ok=True)
        made = pod(machine, repository, *ARGUMENTS, REF=given)
        assert made.returncode == 0, made.stderr
        python = str(machine.home / "rae_dit/.venv/bin/python")
        install, _, ran = machine.called.partition(f"{python}\n")
        assert ran.split("\n") == ["-m", "rae_dit.main", *ARGUMENTS, f"in {expected}", ""]
        installs.append(install)
        assert f"{expected}, Python 3.12.0" in made.stdout
    assert installs[0].endswith("-r requirements.txt -r requirements-tpu.txt\n")
    assert installs[1] == ""
    first, second = machine.gcloud[:2]
    assert first[:-1] == second[:-1]
    assert first[:-1] == [
        *("compute", "tpus", "tpu-vm", "ssh", "t", "--zone=z", "--worker=all"),
        "--batch-size=all",
    ]


@pytest.mark.parametrize(
    "broken", ["clone", "fetch", "checkout", "no such ref", "no such commit", "pip"]
)
def test_a_failure_on_a_worker_ends_the_launch(
    machine: Machine, repository: dict[str, str], broken: str
) -> None:
    checkout, variables = machine.home / "rae_dit", {}
    if broken not in ("clone", "pip"):
        git(machine.home, "clone", "--quiet", repository["path"], "rae_dit")
    match broken:
        case "clone" | "fetch":
            variables["REPO"] = str(machine.home / "gone")
        case "checkout":
            (checkout / "number").write_text("changed by hand")
            variables["REF"] = "new/thing"
        case "no such ref":
            variables["REF"] = "nothing"
        case "no such commit":
            variables["REF"] = "0123456"
        case "pip":
            variables["PIP_FAILS"] = "1"
    made = pod(machine, repository, *ARGUMENTS, **variables)
    assert made.returncode != 0
    assert "rae_dit.main" not in machine.called
    assert len(machine.gcloud) == 1
    # In the middle of an interrupted installation nothing says that it is there.
    assert not list(machine.home.glob("rae_dit/.venv/bin/stamp"))


def test_a_worker_with_an_old_python_gets_one_by_uv(
    machine: Machine, repository: dict[str, str]
) -> None:
    machine.python("python3", 10)
    made = pod(machine, repository, "--x")
    assert made.returncode == 0, made.stderr
    assert machine.called.startswith("uv venv --quiet --seed --python 3.12 .venv\n")
    assert "rae_dit.main" in machine.called


def test_a_worker_takes_the_python_that_is_named(
    machine: Machine, repository: dict[str, str]
) -> None:
    old = machine.python("older", 9)
    made = pod(machine, repository, "--x", PYTHON=str(old))
    assert made.returncode != 0
    assert f"{old} is Python 3.9.0; expected Python 3.11 or newer" in made.stderr
    assert "rae_dit.main" not in machine.called
    named = machine.python("named", 13)
    machine.python("python3", 10)
    made = pod(machine, repository, "--x", PYTHON=str(named))
    assert made.returncode == 0, made.stderr
    assert "Python 3.13.0" in made.stdout


def test_several_slices_are_made_awaited_and_used(
    machine: Machine, repository: dict[str, str]
) -> None:
    machine.states.write_text("none WAITING_FOR_RESOURCES PROVISIONING ACTIVE")
    made = pod(
        machine,
        repository,
        "--x",
        **{"TPU": "", "QUEUED": "q", "SLICES": "2", "SPOT": "1", "POLL_SECONDS": "0"},
        **{"ACCELERATOR": "v5litepod-256", "RUNTIME": "v2-alpha-tpuv5-lite"},
    )
    assert made.returncode == 0, made.stderr
    queue = ["compute", "tpus", "queued-resources"]
    first, create, *describes, prepare, start = machine.gcloud
    assert create == [
        *(*queue, "create", "q", "--zone=z", "--async", "--accelerator-type=v5litepod-256"),
        *("--runtime-version=v2-alpha-tpuv5-lite", "--node-count=2", "--node-prefix=q", "--spot"),
    ]
    describe = [*queue, "describe", "q", "--zone=z", "--format=value(state.state)"]
    assert [first, *describes] == [describe] * 4
    for ssh in (prepare, start):
        assert ssh[:-1] == [
            *(*queue, "ssh", "q", "--zone=z", "--node=all", "--worker=all", "--batch-size=all"),
        ]


QUEUE = {"TPU": "", "QUEUED": "q", "ACCELERATOR": "v5litepod-16", "RUNTIME": "v"}


def made_and_deleted(machine: Machine) -> list[str]:
    return [call[3] for call in machine.gcloud if call[3] != "describe"]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_capacity_that_is_lost_ends_the_launch_or_is_asked_for_again(
    machine: Machine, repository: dict[str, str], state: str
) -> None:
    """As after a preemption: the queued resource is there, and `create` would fail."""
    machine.states.write_text(f"{state} {state} ACTIVE")
    made = pod(machine, repository, "--x", **QUEUE, EXISTS="1")
    assert made.returncode == 1
    assert made.stderr == f"q is {state}; RECREATE=1 deletes it and makes it again\n"
    assert made_and_deleted(machine) == []
    machine.states.write_text(f"{state} {state} PROVISIONING ACTIVE")
    made = pod(machine, repository, "--x", **QUEUE, RECREATE="1", POLL_SECONDS="0")
    assert made.returncode == 0, made.stderr
    assert made_and_deleted(machine) == ["delete", "create", "ssh", "ssh"]
    delete, create = (call for call in machine.gcloud if call[3] in ("delete", "create"))
    assert delete[4:] == ["q", "--zone=z", "--force", "--quiet"]
    assert create[-1] == "--node-id=q-0"


def test_a_queued_resource_that_is_active_is_used(
    machine: Machine, repository: dict[str, str]
) -> None:
    machine.states.write_text("ACTIVE")
    made = pod(machine, repository, "--x", **QUEUE, EXISTS="1")
    assert made.returncode == 0, made.stderr
    assert made_and_deleted(machine) == ["ssh", "ssh"]


@pytest.mark.parametrize("states", ["WAITING_FOR_RESOURCES", "none"])
def test_waiting_ends(machine: Machine, repository: dict[str, str], states: str) -> None:
    machine.states.write_text(states)
    made = pod(machine, repository, "--x", **QUEUE, WAIT_SECONDS="1", POLL_SECONDS="1")
    assert made.returncode == 1
    found = "not known" if states == "none" else states
    assert f"q is {found} after 1 s (WAIT_SECONDS); run this again" in made.stderr
    assert "ssh" not in made_and_deleted(machine)


@pytest.mark.parametrize("queued", [False, True])
def test_a_dry_run_prints_the_commands_that_a_run_runs(
    machine: Machine, repository: dict[str, str], queued: bool
) -> None:
    variables = {"TPU": "", "QUEUED": "q"} if queued else {}
    printed = pod(machine, repository, *ARGUMENTS, DRY_RUN="1", **variables)
    assert printed.returncode == 0
    assert not machine.gcloud_calls.exists()
    assert pod(machine, repository, *ARGUMENTS, **variables).returncode == 0
    words = [word for call in machine.gcloud for word in ("gcloud", *call)]
    assert shlex.split(printed.stdout) == words


def test_a_pod_needs_a_name(machine: Machine, repository: dict[str, str]) -> None:
    made = pod(machine, repository, "--x", TPU="")
    assert made.returncode != 0
    assert "name of the TPU, or QUEUED" in made.stderr


HOSTS = {"COORDINATOR": "h:1", "NUM": "2", "ID": "1"}
SLURM = {"SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_ON_NODE": "4"}
SRUN = r"""#!/usr/bin/env bash
printf '%s\n' "JAX_LOCAL_DEVICE_IDS=$JAX_LOCAL_DEVICE_IDS" "$1" "$2" >>"$CALLS"
exec "${@:3}"
"""


def launched(machine: Machine, script: str, root: Path, **variables: str):
    """Runs slurm.sh (from where SLURM keeps its copy) or gpu_hosts.sh (from anywhere)."""
    machine.program(machine.bin / "srun", SRUN)
    given = (SLURM | {"SLURM_SUBMIT_DIR": str(root)}) if script == "slurm" else HOSTS
    path = root / "launch" / f"{script}.sh"
    return machine.run("bash", path, "a b", cwd=machine.home, **(given | variables))


@pytest.mark.parametrize("script", ["slurm", "gpu_hosts"])
def test_hosts_find_their_python(machine: Machine, tmp_path: Path, script: str) -> None:
    """The one that is named, the active environment's, the one of quickstart.sh, python3."""
    root = copy_launch(tmp_path / "clone")
    own = machine.python("python", 12, root / ".venv/bin")
    active = machine.python("python", 12, tmp_path / "active/bin")
    named = machine.python("named", 12)
    for expected, variables in (
        (own, {}),
        (active, {"VIRTUAL_ENV": str(tmp_path / "active")}),
        (named, {"VIRTUAL_ENV": str(tmp_path / "active"), "PYTHON": "named"}),
    ):
        machine.calls.unlink(missing_ok=True)
        made = launched(machine, script, root, **variables)
        assert made.returncode == 0, made.stderr
        lines = machine.called.splitlines()
        if script == "slurm":
            assert lines[:3] == [
                *("JAX_LOCAL_DEVICE_IDS=0,1,2,3", "--kill-on-bad-exit=1", "--cpus-per-task=32"),
            ]
            lines, flags = lines[3:], []
        else:
            flags = ["--coordinator_address=h:1", "--num_processes=2", "--process_id=1"]
        assert lines[:-1] == [str(expected), "-m", "rae_dit.main", "a b", *flags]
    own.unlink()
    assert launched(machine, script, root).returncode == 0
    assert str(machine.bin / "python3") in machine.called


@pytest.mark.parametrize("script", ["slurm", "gpu_hosts"])
def test_hosts_refuse_an_old_python(machine: Machine, tmp_path: Path, script: str) -> None:
    machine.python("python3", 10)
    made = launched(machine, script, copy_launch(tmp_path / "clone"))
    assert made.returncode != 0
    assert "python3 is Python 3.10.0; expected Python 3.11 or newer" in made.stderr
    assert len(made.stderr.splitlines()) == 1
    assert "rae_dit.main" not in machine.called


def environment(machine: Machine, root: Path, **variables: str):
    line = 'set -euo pipefail; . launch/environment.sh requirements.txt; echo "$python"'
    return machine.run("bash", "-c", line, cwd=root, **variables)


def test_setting_python_helps_after_an_old_one_was_refused(
    machine: Machine, tmp_path: Path
) -> None:
    root = copy_launch(tmp_path / "clone")
    machine.python("python3", 10)
    made = environment(machine, root)
    assert made.returncode != 0
    assert "python3 is Python 3.10.0; expected Python 3.11 or newer" in made.stderr
    machine.python("another", 12)
    made = environment(machine, root, PYTHON="another")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == str(root / ".venv/bin/python")


def test_the_newest_python_is_found(machine: Machine, tmp_path: Path) -> None:
    machine.python("python3", 10)
    machine.python("python3.12", 12)
    made = environment(machine, copy_launch(tmp_path / "clone"))
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("fault", ["old", "no pip", "broken"])
def test_an_environment_that_cannot_be_used_is_made_again(
    machine: Machine, tmp_path: Path, fault: str
) -> None:
    root = copy_launch(tmp_path / "clone with a space")
    old = machine.python("python", 10 if fault == "old" else 12, root / ".venv/bin")
    if fault == "no pip":
        (root / ".venv/bin/no_pip").touch()
        (root / ".venv/bin/no_ensurepip").touch()
    if fault == "broken":
        old.unlink()
        old.symlink_to(tmp_path / "python that was removed")
    for _ in range(2):
        made = environment(machine, root)
        assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == str(root / ".venv/bin/python")
    assert old.read_text().count("exit $((12 <") == 1
    assert (root / ".venv.old").exists()
    assert not (root / ".venv/bin/no_pip").exists()


def test_an_active_environment_is_never_replaced(machine: Machine, tmp_path: Path) -> None:
    root = copy_launch(tmp_path / "clone")
    active = machine.python("python", 10, tmp_path / "active/bin")
    made = environment(machine, root, VIRTUAL_ENV=str(tmp_path / "active"))
    assert made.returncode != 0
    assert f"{active} is Python 3.10.0; expected Python 3.11 or newer; deactivate" in made.stderr
    assert len(made.stderr.splitlines()) == 1
    assert active.exists()


def test_an_environment_without_pip_gets_it(machine: Machine, tmp_path: Path) -> None:
    """What `uv venv` makes; and what is left where Debian's python3-venv is missing."""
    root = copy_launch(tmp_path / "clone")
    machine.python("python", 12, root / ".venv/bin")
    (root / ".venv/bin/no_pip").touch()
    made = environment(machine, root)
    assert made.returncode == 0, made.stderr
    first, second = machine.called.splitlines()
    assert first == "-m ensurepip --upgrade"
    assert second.startswith("-m pip install")
    assert environment(machine, root).returncode == 0
    assert len(machine.called.splitlines()) == 2  # installed once


@pytest.mark.parametrize("place", ["root", "elsewhere"])
def test_a_workdir_of_the_quickstart_is_where_it_was_called_from(
    machine: Machine, tmp_path: Path, place: str
) -> None:
    """And each of its six steps says which it is."""
    root = copy_launch(tmp_path / "a clone")
    here = root if place == "root" else machine.home
    made = machine.run("bash", root / "launch" / "quickstart.sh", "mine", "--x", cwd=here)
    assert made.returncode == 0, made.stderr
    work = "mine" if place == "root" else f"{here}/mine"
    assert [line[:10] for line in made.stdout.splitlines() if line.startswith("---")] == [
        f"--- {i} of 6" for i in range(1, 7)
    ]
    assert f"after step 3  {work}/rae/reconstructions.png" in made.stdout
    assert machine.called.count(f"--workdir={work}/") == 6
    assert machine.called.count("\n--x\n") == 6
