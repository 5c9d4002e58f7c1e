"""launch/gke.sh and launch/gke.yaml: the JobSet, its policies by exit code, and the recipe of the image."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from recorders import World

ROOT = Path(__file__).parent.parent
SLICE = ("--accelerator", "tpu-v5-lite-podslice", "--topology", "4x4")
RUN = ("--name", "faces", "--image", "europe-docker.pkg.dev/mine/all/ecvae:1", "--claim", "faces-nfs")
AWKWARD = """/shared/my "records" & it's $HOME $(HOME) ${hosts} * \\ ü"""
TRAIN = ("--", "configs/paper_256.py", "--workdir", "/shared/runs/faces", "--data.records", AWKWARD)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, ROOT)
    world.tool("kubectl", "(world / 'applied').write_text(sys.stdin.read())")
    return world


def launch(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return world.run("launch/gke.sh", *arguments)


def jobset(world: World, *arguments: str) -> dict[str, Any]:
    shown = launch(world, *RUN, *arguments, "--dry-run", *TRAIN)
    assert shown.returncode == 0, shown.stderr
    return yaml.safe_load(shown.stdout)


def job(whole: dict[str, Any]) -> dict[str, Any]:
    (only,) = whole["spec"]["replicatedJobs"]
    assert only["replicas"] == 1
    return only["template"]["spec"]


@pytest.mark.parametrize(
    ("topology", "chips", "hosts", "per_host"),
    [("4x4", None, 4, 4), ("16x16", None, 64, 4), ("2x2x4", None, 4, 4), ("2x4", "8", 1, 8), ("1x1", None, 1, 1)],
)
def test_one_pod_per_host_of_the_slice(
    world: World, topology: str, chips: str | None, hosts: int, per_host: int
) -> None:
    more = ("--chips-per-host", chips) if chips else ()
    spec = job(jobset(world, "--accelerator", "tpu-v5-lite-podslice", "--topology", topology, *more))
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (hosts, hosts, "Indexed")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"] == {kind: {"google.com/tpu": per_host} for kind in ("requests", "limits")}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": topology,
        "cloud.google.com/gke-spot": "true",
    }


def test_pods_find_each_other_share_a_volume_and_have_time_to_store(world: World) -> None:
    whole = jobset(world, *SLICE)
    assert (whole["apiVersion"], whole["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert whole["metadata"]["name"] == "faces"
    assert whole["spec"]["network"]["enableDNSHostnames"] is True
    pod = job(whole)["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 60
    assert {(t["key"], t["effect"]) for t in pod["tolerations"]} == {
        ("cloud.google.com/gke-spot", "NoSchedule"),
        ("google.com/tpu", "NoSchedule"),
    }
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == "faces-nfs"
    (container,) = pod["containers"]
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]


def test_arguments_reach_the_container_unchanged(world: World) -> None:
    (container,) = job(jobset(world, *SLICE))["template"]["spec"]["containers"]
    assert container["command"] == ["ecvae", "train"]
    # Kubernetes passes $$ to the container as $, and expands $(NAME) only without a $ before it.
    assert [word.replace("$$", "$") for word in container["args"]] == [*TRAIN[1:], "--hosts", "auto"]
    assert all("$" not in word.replace("$$", "") for word in container["args"])


@pytest.mark.parametrize(
    ("code", "disrupted", "becomes"),
    [
        (75, False, "restarted"),
        (137, False, "restarted"),
        (143, True, "restarted"),
        (1, True, "restarted"),
        (1, False, "failed"),
        (2, False, "failed"),
    ],
)
def test_exit_code_of_a_pod_decides_on_a_restart(world: World, code: int, disrupted: bool, becomes: str) -> None:
    """The two policies read as the controllers do: the first matching rule counts."""
    whole = jobset(world, *SLICE)
    spec = job(whole)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy requires it
    assert spec["backoffLimit"] == 0

    def fits(rule: dict[str, Any]) -> bool:
        if "onPodConditions" in rule:
            return disrupted and {"type": "DisruptionTarget", "status": "True"} in rule["onPodConditions"]
        assert rule["onExitCodes"]["operator"] == "In"
        assert rule["onExitCodes"]["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
        return code in rule["onExitCodes"]["values"]

    action = next((rule["action"] for rule in spec["podFailurePolicy"]["rules"] if fits(rule)), "Count")
    reason = {"Count": "BackoffLimitExceeded", "FailJob": "PodFailurePolicy"}[action]
    policy = whole["spec"]["failurePolicy"]
    rule = next(
        (rule for rule in policy["rules"] if reason in rule["onJobFailureReasons"]), {"action": "RestartJobSet"}
    )
    assert {"FailJobSet": "failed", "RestartJobSet": "restarted"}[rule["action"]] == becomes
    assert policy["maxRestarts"] == 100


def test_kubectl_gets_what_the_dry_run_shows(world: World) -> None:
    dry = launch(world, *RUN, *SLICE, "--namespace", "team", "--dry-run", *TRAIN)
    assert world.calls() == []
    shown = launch(world, *RUN, *SLICE, "--namespace", "team", *TRAIN)
    assert shown.returncode == 0, shown.stderr
    assert world.calls() == [["kubectl", "--namespace=team", "apply", "-f", "-"]]
    title, text = dry.stdout.split("\n", 1)
    assert title == "# input of: kubectl --namespace=team apply -f -"
    assert (world.folder / "applied").read_text() == text
    assert "kubectl --namespace=team delete jobset faces" in shown.stderr


def test_error_of_kubectl_is_a_failure(world: World) -> None:
    world.tool("kubectl", "sys.exit('no matches for kind \"JobSet\"')")
    shown = launch(world, *RUN, *SLICE, *TRAIN)
    assert shown.returncode == 1
    assert shown.stderr == 'no matches for kind "JobSet"\n'


def test_a_field_without_a_value_is_refused(world: World) -> None:
    with (world.checkout / "launch" / "gke.yaml").open("a") as file:
        file.write("# ${zone}\n")
    shown = launch(world, *RUN, *SLICE, *TRAIN)
    assert shown.returncode == 2
    assert "${zone} has no value" in shown.stderr
    assert world.calls() == []


def test_no_kubectl_is_one_line(world: World) -> None:
    (world.bin / "kubectl").unlink()
    shown = world.run("launch/gke.sh", *RUN, *SLICE, *TRAIN, PATH=world.bare_path())
    assert shown.returncode == 1
    assert shown.stderr.startswith("launch: kubectl was not found")
    assert len(shown.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--name ''"),
        (("--name",), "--name: a value is missing"),
        (("--naem", "x"), "--naem: unknown option"),
        ((*RUN[2:], *SLICE, *TRAIN), "--name '': must be at most 40"),
        ((*RUN[:4], *SLICE, *TRAIN), "--claim '': must be"),
        ((*RUN, *SLICE, "--image", "a b", *TRAIN), "--image 'a b'"),
        ((*RUN, *SLICE[:2], "--topology", "4", *TRAIN), "--topology '4'"),
        ((*RUN, *SLICE[:2], "--topology", "3x3", *TRAIN), "its 9 chips must be a multiple of the 4 chips per host"),
        ((*RUN, *SLICE, "--chips-per-host", "3", *TRAIN), "must be 1, 4 or 8"),
        ((*RUN, *SLICE, "--restarts", "ever", *TRAIN), "--restarts 'ever'"),
        ((*RUN, *SLICE), "the config is missing"),
        ((*RUN, *SLICE, *TRAIN[:2]), "--workdir '': must be a folder in /shared"),
        ((*RUN, *SLICE, *TRAIN[:2], "--workdir=/runs"), "--workdir '/runs': must be a folder in /shared"),
        ((*RUN, *SLICE, *TRAIN, "two\nlines"), "must not contain line breaks"),
    ],
)
def test_wrong_arguments_are_one_line(world: World, arguments: tuple[str, ...], says: str) -> None:
    shown = launch(world, *arguments)
    assert shown.returncode == 2
    assert says in " ".join(shown.stderr.split())
    if "two\nlines" not in arguments:
        assert len(shown.stderr.splitlines()) == 1
    assert world.calls() == []


def test_image_copies_existing_files_and_has_a_supported_python() -> None:
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    sent = {line.removeprefix("!") for line in (ROOT / "launch" / "Dockerfile.dockerignore").read_text().splitlines()}
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert "ecvae_jax" in copied
    assert all((ROOT / name).exists() and name in sent for name in copied)
    (base,) = [line.split(":")[1] for line in lines if line.startswith("FROM python:")]
    minor = int(base.split("-")[0].split(".")[1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert 11 <= minor <= 13
    assert any("'.[tpu]'" in line for line in lines)
    assert "tpu" in project["optional-dependencies"]
