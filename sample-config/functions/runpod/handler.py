"""RunPod serverless: python -u handler.py is the command of the image."""

import runpod

from worker.function import on_runpod

if __name__ == "__main__":
    runpod.serverless.start({"handler": on_runpod})
