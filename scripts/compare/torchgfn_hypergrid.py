"""Trains a GFlowNet on the hypergrid with torchgfn (PyTorch): a peer's part of compare.py.

Follows the package's own hypergrid examples: K-hot observations, one MLP 2x256 whose trunk P_F,
P_B and log F share, its sampler and its loss classes, Adam 1e-3 and log Z at 0.1. No metrics.
Prints one JSON object.
"""

import argparse
import json
import time

START = time.perf_counter()

import torch
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import DBGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.gym import HyperGrid
from gfn.preprocessors import KHotPreprocessor
from gfn.samplers import Sampler
from gfn.utils.modules import MLP


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("objective", choices=["tb", "db", "subtb"])
    parser.add_argument("--dim", type=int, default=4)
    parser.add_argument("--side", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    rewards = {"R0": 1e-3, "R1": 0.5, "R2": 2.0}
    env = HyperGrid(args.dim, args.side, reward_fn_kwargs=rewards, validate_modes=False)
    khot = KHotPreprocessor(height=env.height, ndim=env.ndim)
    inputs = khot.output_dim
    pf_net = MLP(inputs, env.n_actions, hidden_dim=256, n_hidden_layers=2)
    pb_net = MLP(inputs, env.n_actions - 1, hidden_dim=256, trunk=pf_net.trunk)
    pf = DiscretePolicyEstimator(pf_net, env.n_actions, preprocessor=khot)
    pb = DiscretePolicyEstimator(pb_net, env.n_actions, preprocessor=khot, is_backward=True)
    if args.objective == "tb":
        gflownet = TBGFlowNet(pf=pf, pb=pb)
        slow = gflownet.logz_parameters()
    else:
        flow_net = MLP(inputs, 1, hidden_dim=256, trunk=pf_net.trunk)
        flow = ScalarEstimator(flow_net, preprocessor=khot)
        kind = {"db": DBGFlowNet, "subtb": SubTBGFlowNet}[args.objective]
        gflownet = kind(pf=pf, pb=pb, logF=flow)
        slow = []
    special = {id(p) for p in slow}
    rest = [p for p in gflownet.parameters() if id(p) not in special]
    groups = [{"params": rest, "lr": 1e-3}]
    if slow:
        groups.append({"params": slow, "lr": 0.1})
    optimizer = torch.optim.Adam(groups)
    sampler = Sampler(estimator=pf)

    def iteration():
        trajectories = sampler.sample_trajectories(env, n=args.batch, save_logprobs=False)
        samples = gflownet.to_training_samples(trajectories)
        optimizer.zero_grad()
        loss = gflownet.loss(env, samples, recalculate_all_logprobs=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    iteration()
    first = time.perf_counter() - START
    begin = time.perf_counter()
    for _ in range(args.iterations):
        loss = iteration()
    rate = args.iterations / (time.perf_counter() - begin)
    print(json.dumps({"rate": rate, "first_s": first, "loss": loss}))


main()
