"""The files of deploy/ agree with the service: its paths, options and metrics."""

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from mtlweights.cli.main import parser
from mtlweights.serve import TrainedModel
from mtlweights.serve.service.metrics import PATHS, Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
METRICS = Metrics(TrainedModel.from_pretrained(Path(__file__).parent / "format1" / "table").tasks)


def test_the_manifest_calls_what_is_there():
    objects = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    pod = objects["Deployment"]["spec"]["template"]
    container = pod["spec"]["containers"][0]
    args = parser().parse_args(["serve", "MODEL", *container["args"]])
    assert args.drain < pod["spec"]["terminationGracePeriodSeconds"]
    port = container["ports"][0]["containerPort"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in PATHS
    assert int(pod["metadata"]["annotations"]["prometheus.io/port"]) == port
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    scaler = objects["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    adapter = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())["rules"]["custom"][0]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == adapter["name"]["as"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    entry = re.search(r"ENTRYPOINT \[(.*)\]", dockerfile)[1].replace('"', "").split(", ")
    assert parser().parse_args(entry[1:]).port == port and f"EXPOSE {port}" in dockerfile
    assert f"USER {pod['spec']['securityContext']['runAsUser']}" in dockerfile


def test_alerts_and_the_adapter_name_metrics_that_there_are():
    METRICS.request("/predict", 200, 0.1)
    page = METRICS.page().decode()
    for name in ("alerts.yaml", "prometheus-adapter.yaml"):
        used = set(re.findall(r"mtlweights_\w+", (DEPLOY / name).read_text())) - {
            "mtlweights_request_seconds_p95"
        }
        known = {
            family + end for family in re.findall(r"# TYPE (\w+)", page) for end in ("", "_bucket", "_count")
        }
        assert used and used <= known, used - known


def test_tools_accept_the_files():
    """promtool and hadolint, where they are installed; both are optional on a machine of one's own."""
    for command in (["promtool", "check", "rules", "alerts.yaml"], ["hadolint", "Dockerfile"]):
        if shutil.which(command[0]):
            done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
