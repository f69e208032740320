"""The native build and the packages; metadata is in pyproject.toml. Compiling needs torch, nothing else does."""

import importlib.util

import setuptools

if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(f"setuptools {setuptools.__version__} is too old: pip install -U 'setuptools>=77,<82'")

# By path: importing detkit itself would need its dependencies.
spec = importlib.util.spec_from_file_location("detkit_build", "detkit/native/build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
# configs/ is beside the package in a checkout and inside it where detkit is installed (detkit/config/find.py).
folders = [f"detkit.configs.{name}" for name in setuptools.find_namespace_packages("configs")]
setuptools.setup(
    packages=[*setuptools.find_namespace_packages(include=["detkit", "detkit.*"]), "detkit.configs", *folders],
    package_dir={"detkit.configs": "configs"},
    **build.setup_arguments(),
)
