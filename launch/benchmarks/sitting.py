r"""One sitting on one GPU with all that docs/performance.md compares, in few seconds of the device.

    python launch/benchmarks/sitting.py --output=DIR [--seconds=480] [--fp8] [PART ...]

Compiling takes most of a sitting, so the benchmarks of part "pair" compile at the same time, ours
beside PyTorch's, and are then timed one after the other (timing.wait_for_turn); so do those of
other parts, and of parts joined by a plus: `stage1+tables`. Parts, in order of their worth: start,
pair, stage1, tables, sampling, latents, options, loader. What would begin after `--seconds` is left
out, and what has not ended 30 s later is stopped. Lines go to DIR/sitting.jsonl with the name of
the measurement, words to DIR/sitting.log, both after each part; a short table is printed last.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launch.benchmarks.sitting_parts import Job, parts, tiny

ROOT = Path(__file__).resolve().parents[2]
GRACE = 30.0


class Sitting:
    """Running jobs, their files, and the time that is left."""

    def __init__(self, work: Path, output: Path, seconds: float) -> None:
        """Makes the directories."""
        self.work, self.output, self.end = work, output, time.monotonic() + seconds
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for directory in (work, output):
            directory.mkdir(parents=True, exist_ok=True)

    def run(self, jobs: Sequence[Job]) -> None:
        """Compiles jobs at the same time and times them in turn; leaves none running."""
        try:
            self.compile_and_time(jobs)
        finally:
            for process in self.running.values():
                if process.poll() is None:
                    end(process)
            self.collect()

    def compile_and_time(self, jobs: Sequence[Job]) -> None:
        """Starts jobs, and gives each its turn once all are ready."""
        waiting, started = [*jobs], time.monotonic()
        while waiting or any(job.takes_turns and not self.is_ready(job.name) for job in jobs):
            for job in [*waiting]:
                if not job.after or self.is_ready(job.after):
                    waiting.remove(job)
                    self.start(job)
            if time.monotonic() > self.end:
                break
            time.sleep(0.1)
        print(f"# compiled after {time.monotonic() - started:.0f} s", flush=True)
        for job in jobs:
            if job not in waiting:
                self.finish(job)

    def start(self, job: Job) -> None:
        """Starts a job, which waits for its turn once it is compiled."""
        for ending in (".ready", ".go"):  # of an earlier sitting
            self.path(job.name, ending).unlink(missing_ok=True)
        turn = [f"--turn={self.path(job.name)}"] if job.takes_turns else []
        command = [sys.executable, *shlex.split(job.command), *turn]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTHONUNBUFFERED": "1",
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "cache"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share the device
        }
        with (
            self.path(job.name, ".jsonl").open("wb") as out,
            self.path(job.name, ".err").open("wb") as err,
        ):
            self.running[job.name] = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=out, stderr=err, start_new_session=True
            )

    def is_ready(self, name: str) -> bool:
        """Tells whether a job waits for its turn, or has ended."""
        process = self.running.get(name)
        return process is not None and (
            self.path(name, ".ready").exists() or process.poll() is not None
        )

    def finish(self, job: Job) -> None:
        """Lets a job go on, and waits for its end."""
        begun = time.monotonic()
        self.path(job.name, ".go").touch()
        process = self.running[job.name]
        try:
            process.wait(max(1.0, self.end + GRACE - time.monotonic()))
        except subprocess.TimeoutExpired:
            end(process)
        took = time.monotonic() - begun
        print(f"# {job.name}: status {process.returncode}, {took:.0f} s", flush=True)

    def path(self, name: str, ending: str = "") -> Path:
        """Returns a file of a job."""
        return self.work / (name.replace(" ", "_") + ending)

    def collect(self) -> list[dict[str, Any]]:
        """Writes all lines and words so far to the output, and returns the lines."""
        lines: list[dict[str, Any]] = []
        words = ""
        for name in self.running:
            text = self.path(name, ".jsonl").read_text(errors="replace")
            # whole lines: the last one of a job that was stopped may be torn
            whole = text[: text.rfind("\n") + 1].splitlines()
            found = [json.loads(line) for line in whole if line.startswith("{")]
            lines += [{"measurement": name} | line for line in found]
            words += (
                f"== {name}\n{shortened(self.path(name, '.err').read_text(errors='replace'))}\n"
            )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self.output / "sitting.jsonl").write_text(text)
        (self.output / "sitting.log").write_text(words)
        return lines


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kills a job with the processes that it started, and waits for its end."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def shortened(text: str) -> str:
    """Returns the ends of a text; what a crash says of itself comes before its many threads."""
    return text if len(text) < 9000 else f"{text[:3000]}\n...\n{text[-6000:]}"


SHOWN = (
    *("measurement", "part", "start", "setting", "state", "size", "data", "image_size", "remat"),
    *("loader", "guidance", "cfg_scale", "interval", "batch", "program_gib", "within_limit", "ms"),
    *("first_step_seconds", "longest", "compile_seconds", "images_per_second", "tflops", "status"),
    *("images_per_second_per_core", "rate / folder", "rate / torch", "evaluations_saved"),
    *("time_saved", "decoding_share", "queued_images_per_second", "one_by_one_images_per_second"),
    *("equal_bits", "step_ms_alone", "step_ms", "loader_images_per_second", "peak_gib"),
)


def main() -> None:
    """Runs the parts that fit, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help="all, if none is named; A+B: at once")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sitting"))
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--fp8", action="store_true", help="train in float8, too")
    parser.add_argument("--dry_run", action="store_true", help="tiny networks, on any device")
    options = parser.parse_args()
    known = parts(options.work / "cache", fp8=options.fp8)
    wanted = [part.split("+") for part in options.parts or known]
    if unknown := {name for names in wanted for name in names} - set(known):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    sitting = Sitting(options.work, options.output, options.seconds)
    for names in wanted:
        if time.monotonic() > sitting.end:
            print(f"# {'+'.join(names)}: left out, the time is over", flush=True)
            continue
        jobs = [job for name in names for job in known[name]]
        sitting.run([tiny(job) for job in jobs] if options.dry_run else jobs)
    for line in sitting.collect():
        print(json.dumps({name: line[name] for name in SHOWN if name in line}))


if __name__ == "__main__":
    main()
