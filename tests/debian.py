"""Programs that Debian has and a test needs: found, or installed where that is allowed."""

import os
import shutil
import subprocess
from glob import glob

import pytest


def program(pattern, package):
    """Path of a program, by a glob or a name; installs the package as root where there is apt-get.

    Skips where it cannot be had, and fails in CI.
    """
    for again in (False, True):
        found = sorted(glob(pattern)) or [shutil.which(pattern)]
        if found[-1]:
            return found[-1]
        if not again and os.getuid() == 0 and shutil.which("apt-get"):
            for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
                environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
                subprocess.run(["apt-get", "-q", *command], check=False, env=environment, timeout=600)
    if os.environ.get("CI"):
        pytest.fail(f"CI has to be able to install {package}")
    pytest.skip(f"there is no {package} here, and none can be installed")
