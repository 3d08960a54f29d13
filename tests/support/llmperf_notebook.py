"""What users' notebooks do with LLMPerf's files, cell after cell: `python llmperf_notebook.py RESULTS_DIR`.

It knows nothing of llmexp, and is not to be changed to make it pass.
"""

# Written as users write it.
# ruff: noqa: PTH118, PTH123, PTH207
import glob
import json
import os
import sys

import pandas as pd

# %% The summaries of all runs in a folder
result_dir = sys.argv[1]
rows = []
for path in glob.glob(os.path.join(result_dir, "*summary.json")):
    with open(path) as file:
        rows.append(json.load(file))
summaries = pd.json_normalize(rows)

# %% One line a run
columns = [
    "model",
    "mean_input_tokens",
    "stddev_input_tokens",
    "mean_output_tokens",
    "stddev_output_tokens",
    "num_concurrent_requests",
    "results_ttft_s_mean",
    "results_inter_token_latency_s_mean",
    "results_end_to_end_latency_s_quantiles_p95",
    "results_mean_output_throughput_token_per_s",
    "results_num_completed_requests",
    "results_num_completed_requests_per_min",
    "results_error_rate",
]
print(summaries[columns].T.to_string())
first = summaries.iloc[0]
print("tokens per request at least", int(first["results_number_output_tokens_min"]))

# %% The single requests
(path,) = glob.glob(os.path.join(result_dir, "*individual_responses.json"))
df = pd.read_json(path)
valid_df = df[df["error_code"].isna()]
print(valid_df[["ttft_s", "end_to_end_latency_s", "number_output_tokens"]].describe().to_string())

# %% What the author concludes
print(
    json.dumps(
        {
            "model": first["model"],
            "ttft_s": float(first["results_ttft_s_mean"]),
            "ttft_s_again": float(valid_df["ttft_s"].mean()),
            "itl_ms": float(first["results_inter_token_latency_s_mean"]) * 1000,
            "itl_ms_again": float(valid_df["inter_token_latency_s"].mean()) * 1000,
            "completed": int(first["results_num_completed_requests"]),
            "responses": len(valid_df),
            "error_rate": float(first["results_error_rate"]),
            "error_rate_again": float(df["error_code"].notna().mean()),
            "tokens_per_s": float(first["results_mean_output_throughput_token_per_s"]),
            "correlation": float(valid_df["number_output_tokens"].corr(valid_df["end_to_end_latency_s"])),
        }
    )
)
