"""What the live page costs a browser: frames and memory with 10,000 variables and 300 events a second.

    .venv/bin/python bench/bench_page.py [SECONDS, 300]

It needs Debian's chromium. It tells how long it is from frame to frame, how long each drawing of a list takes with its
sorting, how much memory the page holds after a collection, and how many nodes it has.
"""

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

SERVICE = Path(__file__).parent.parent / "tests" / "e2e" / "page_service.py"
N_VARIABLES, EVENTS_A_SECOND = 10000, 300
FLAGS = ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info", "--js-flags=--expose-gc"]

# Frames: from one to the next, when each may take 16.7 ms; and how long each drawing of ours takes.
MEASURE = """() => {
  window.frames_ms = []; window.draws_ms = [];
  let last = performance.now();
  const frame = (now) => { frames_ms.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  for (const name of ["drawVariables", "drawEvents"]) {
    const drawn = window[name];
    window[name] = () => { const begun = performance.now(); drawn(); draws_ms.push(performance.now() - begun); };
  }
}"""


def main(seconds: float) -> None:
    service = subprocess.Popen(
        [sys.executable, str(SERVICE), str(N_VARIABLES)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    url = service.stdout.readline().split()[0]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        page.wait_for_selector('#connection[data-state="live"]', timeout=120000)
        page.evaluate(MEASURE)
        begun, sent, heaps = time.monotonic(), 0, []
        while time.monotonic() - begun < seconds:
            print(f"touch({sent % (N_VARIABLES - 30)}, 30)", file=service.stdin, flush=True)
            service.stdout.readline()
            sent += 30
            time.sleep(max(0, begun + sent / EVENTS_A_SECOND - time.monotonic()))
            if sent % 9000 == 0:
                heaps.append(page.evaluate("() => { gc(); return performance.memory.usedJSHeapSize; }") / 2**20)
                print(f"{time.monotonic() - begun:5.0f} s  {sent} events  heap {heaps[-1]:.1f} MiB", flush=True)
        frames, draws = page.evaluate("frames_ms"), page.evaluate("draws_ms")
        nodes = page.evaluate("document.querySelectorAll('*').length")
        browser.close()
    service.stdin.close()
    service.wait()
    for name, values in (("frame", frames), ("drawing", draws)):
        percentiles = statistics.quantiles(values, n=100)
        print(f"{name}: median {percentiles[49]:.1f} ms, 95 % {percentiles[94]:.1f} ms, 99 % {percentiles[98]:.1f} ms")
    print(f"nodes {nodes}, {sent / seconds:.0f} events a second")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 300)
