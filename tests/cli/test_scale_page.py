"""The scripts of docs/scale.md as they stand: the eight lines for SLURM, with stand-ins for its commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
SRBENCH = """#!{python}
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from srbench.shards import shard_of
arguments = sys.argv[1:]
part = shard_of(arguments[arguments.index("--shard") + 1])
with Path({log!r}).open("a") as log:
    log.write(f"{{part}} {{os.environ.get('HF_HUB_OFFLINE')}}\\n")
sys.exit(int(os.environ["ENDS_WITH"]))
"""


def script() -> list[str]:
    lines = [line.removeprefix("    ") for line in PAGE.read_text().splitlines()]
    start = lines.index("#!/bin/bash")
    return lines[start : lines.index("", start)]


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="no bash here")
@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (130, True)])
def test_the_script_for_slurm_runs_each_part_and_is_queued_again_when_interrupted(
    code: int, requeued: bool, tmp_path: Path
) -> None:
    assert len(script()) == 8
    log = tmp_path / "log"
    stands_in = {
        "srun": "#!/bin/bash\nexec \"$@\"\n", "scontrol": f"#!/bin/bash\necho \"$@\" >> {log}\n",
        "srbench": SRBENCH.format(python=sys.executable, root=str(PAGE.parents[1]), log=str(log)),
    }  # fmt: skip
    for name, text in stands_in.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "run.sh").write_text("\n".join(script()) + "\n")
    array = {"SLURM_ARRAY_TASK_COUNT": "16", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_JOB_ID": "77", "ENDS_WITH": str(code)}
    for task in ("1", "16"):
        environment = {**os.environ, **array, "SLURM_ARRAY_TASK_ID": task, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(["/bin/bash", "run.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (code, "")
    again = {task: f"requeue 77_{task}\n" if requeued else "" for task in ("1", "16")}
    assert log.read_text() == f"1/16 1\n{again['1']}16/16 1\n{again['16']}"


def test_the_page_names_options_that_there_are() -> None:
    from typer.testing import CliRunner

    from srbench.cli.main import app

    helped = CliRunner().invoke(app, ["run", "--help"]).stdout
    assert all(option in helped for option in ("--shard", "--sample-only", "--no-score"))
