"""Trains a GFlowNet on the hypergrid with gfnx (JAX): the peer's half of compare.py.

Uses the published package's environment, reward and rollout; network, losses and optimiser are
those of its hypergrid baselines (MLP 2x256, shared, learned P_B, Adam 1e-3, log Z at 0.1), and
the whole loop runs inside one compiled function. With --style lean the losses are written to be
fast and nothing else is done. With --style published an iteration does what its published scripts
do: SubTB goes over every pair of states with a masked sum of its own, the sampled objects enter
the buffer of the package's metric, and a callback reports the loss. Prints one JSON object.
"""

import argparse
import json
import time

START = time.perf_counter()

import gfnx
import jax
import jax.numpy as jnp
import optax
from gfnx.metrics import ApproxDistributionMetricsModule

HIDDEN = 256


def init(key, sizes):
    params = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        key, a, b = jax.random.split(key, 3)
        bound = fan_in**-0.5
        weight = jax.random.uniform(a, (fan_in, fan_out), minval=-bound, maxval=bound)
        params.append((weight, jax.random.uniform(b, (fan_out,), minval=-bound, maxval=bound)))
    return params


def mlp(params, x):
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ params[-1][0] + params[-1][1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("objective", choices=["tb", "db", "subtb"])
    parser.add_argument("--style", choices=["lean", "published"], default="lean")
    parser.add_argument("--dim", type=int, default=4)
    parser.add_argument("--side", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()

    env = gfnx.HypergridEnvironment(gfnx.EasyHypergridRewardModule(), dim=args.dim, side=args.side)
    env_params = env.init(jax.random.PRNGKey(0))
    n_forward, n_backward = env.action_space.n, env.backward_action_space.n
    sizes = [args.dim * args.side, HIDDEN, HIDDEN, n_forward + n_backward + 1]
    params = {"net": init(jax.random.PRNGKey(1), sizes), "log_z": jnp.zeros(())}
    optimizer = optax.multi_transform(
        {"net": optax.adam(1e-3), "log_z": optax.adam(0.1)}, {"net": "net", "log_z": "log_z"}
    )

    def split(net, obs):
        return jnp.split(mlp(net, obs), [n_forward, n_forward + n_backward], axis=-1)

    def policy(_, obs, net):
        return split(net, obs)[0], {}

    def taken(logits, invalid, action):
        log_probs = jax.nn.log_softmax(gfnx.utils.mask_logits(logits, invalid), axis=-1)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def by_step(mask, state):
        flat = jax.tree.map(lambda x: x.reshape((-1,) + x.shape[2:]), state)
        shape = jax.tree.leaves(state)[0].shape[:2]
        return mask(flat, env_params).reshape(shape + (-1,))

    def residuals(params, data):
        """Per transition: validity, log P_F, log P_B, log F at both ends (R where terminal)."""
        forward, backward, flow = split(params["net"], data.obs)
        valid = ~data.pad[:, :-1]
        log_pf = taken(forward, by_step(env.get_invalid_mask, data.state), data.action)[:, :-1]
        child = jax.tree.map(lambda x: x[:, 1:], data.state)
        action = jnp.where(data.action >= n_backward, 0, data.action)[:, :-1]
        log_pb = taken(backward[:, 1:], by_step(env.get_invalid_backward_mask, child), action)
        done = data.done[:, :-1]
        log_reward = data.log_gfn_reward[:, :-1]
        end = jnp.where(done, log_reward, flow[:, 1:, 0])
        zero = lambda x: jnp.where(valid, x, 0.0)
        return valid, zero(log_pf), zero(log_pb), flow[:, :-1, 0], end, jnp.where(valid & done, log_reward, 0.0)

    def by_pairs(valid, log_pf, log_pb, start, end):
        length = log_pf.shape[0]

        def pair(i, j):
            between = (jnp.arange(length) >= i) & (jnp.arange(length) < j)
            residual = start[i] + (log_pf * between).sum() - end[j - 1] - (log_pb * between).sum()
            weight = 0.9 ** (j - i)
            term = lambda: (weight * residual**2, weight)
            return jax.lax.cond(valid[j - 1], term, lambda: (0.0, 0.0))

        total, norm = jax.vmap(pair)(*jnp.triu_indices(length + 1, k=1))
        return total.sum() / norm.sum()

    def loss(params, data):
        valid, log_pf, log_pb, start, end, log_reward = residuals(params, data)
        if args.objective == "tb":
            residual = params["log_z"] + (log_pf - log_pb - log_reward).sum(1)
            return (residual**2).mean()
        if args.objective == "db":
            residual = jnp.where(valid, start + log_pf - end - log_pb, 0.0)
            return (residual**2).sum() / valid.sum()
        if args.style == "published":
            return jax.vmap(by_pairs)(valid, log_pf, log_pb, start, end).mean()
        # Sub-trajectories i -> j of n transitions, weight 0.9^(j-i-1), normalised per trajectory.
        ratio = jnp.cumsum(log_pf - log_pb, axis=1)
        v = jnp.concatenate([start[:, :1], jnp.where(valid, end, 0.0) - ratio], axis=1)
        index = jnp.arange(v.shape[1])
        gap = index[None, :] - index[:, None]
        within = (gap > 0) & (index[None, None, :] <= valid.sum(1)[:, None, None])
        weight = jnp.where(within, 0.9 ** jnp.maximum(gap - 1, 0), 0.0)
        weight = weight / weight.sum((1, 2), keepdims=True)
        residual = v[:, :, None] - v[:, None, :]
        return (weight * residual**2).sum((1, 2)).mean()

    metric = ApproxDistributionMetricsModule(metrics=["tv"], env=env, buffer_size=200_000)
    watched = None
    if args.style == "published":
        watched = metric.init(jax.random.key(0), metric.InitArgs(env_params=env_params))

    def iteration(i, carry):
        key, params, state, _, watched = carry
        key, sample = jax.random.split(key)
        data, info = gfnx.utils.forward_rollout(
            rng_key=sample,
            num_envs=args.batch,
            policy_fn=policy,
            policy_params=params["net"],
            env=env,
            env_params=env_params,
        )
        value, gradient = jax.value_and_grad(loss)(params, data)
        updates, state = optimizer.update(gradient, state, params)
        if args.style == "published":
            seen = metric.UpdateArgs(states=info["final_env_state"])
            watched = metric.update(watched, rng_key=jax.random.key(0), args=seen)
            norm = optax.tree_utils.tree_l2_norm(gradient)
            jax.debug.callback(lambda *values: [float(v) for v in values], i, value, norm, ordered=True)
        return key, optax.apply_updates(params, updates), state, value, watched

    @jax.jit
    def block(carry, n):
        return jax.lax.fori_loop(0, n, iteration, carry)

    carry = (jax.random.PRNGKey(2), params, optimizer.init(params), jnp.zeros(()), watched)
    jax.block_until_ready(block(carry, 1))
    first = time.perf_counter() - START
    begin = time.perf_counter()
    carry = jax.block_until_ready(block(carry, args.iterations))
    seconds = time.perf_counter() - begin
    rate = args.iterations / seconds
    print(json.dumps({"rate": rate, "first_s": first, "loss": float(carry[3])}))


if __name__ == "__main__":
    main()
