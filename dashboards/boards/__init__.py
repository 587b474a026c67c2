"""The dashboards as code. Each module makes one; `dashboards/build.py` writes them to `grafana/`."""

import warnings

# The builder would rather have the newer resource format and says so once, when it is imported. Classic JSON is
# what every Grafana from 10 on provisions from files, and that is what we ship.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard, timeseries  # noqa: F401
