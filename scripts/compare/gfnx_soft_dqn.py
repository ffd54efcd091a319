"""Trains soft Q-learning on the hypergrid with gfnx (JAX): the peer's half of compare.py.

Uses the published package's environment, reward and rollout; the whole loop runs inside one compiled
function: MLP 2x256 without other heads, uniform P_B, Adam 1e-3, a target that follows at 0.25, Huber's
penalty. The package has this objective in its baselines alone, without Munchausen's term, replay or a
learned P_B, so there are two styles.

With --style lean it has what gfn has: the last 100,000 transitions in arrays of the loop, of which 256 are
drawn uniformly for the one update of an iteration, after 16 iterations without; --alpha is
Munchausen's. With --style published an iteration does what the baseline does: dueling, the loss on the
iteration's own transitions with weight 5 at their ends, sampled objects into the buffer of the package's
metric, and a callback that reports loss, gradient, entropy and rewards. Prints one JSON object.
"""

import argparse
import json
import time

import gfnx
import jax
import jax.numpy as jnp
import optax
from gfnx.metrics import ApproxDistributionMetricsModule

from gfnx_hypergrid import HIDDEN, START, init, mlp

KEPT = ["cells", "action", "log_reward"]
CAPACITY, DRAWN, FILL = 100_000, 256, 16
TARGET_TAU, L0, LEAF = 0.25, -100.0, 5.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--alpha", type=float, default=0.0)
    parser.add_argument("--style", choices=["lean", "published"], default="lean")
    parser.add_argument("--dim", type=int, default=4)
    parser.add_argument("--side", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--objects", type=int, default=0, help="also count so many at the end")
    args = parser.parse_args()
    published = args.style == "published"
    if published and args.alpha:
        parser.error("the baseline has no Munchausen's term")
    tau = 1 / (1 - args.alpha)

    env = gfnx.HypergridEnvironment(gfnx.EasyHypergridRewardModule(), dim=args.dim, side=args.side)
    env_params = env.init(jax.random.PRNGKey(0))
    n_actions, stop = env.action_space.n, env.stop_action
    sizes = [args.dim * args.side, HIDDEN, HIDDEN, n_actions + published]
    params = init(jax.random.PRNGKey(1), sizes)
    optimizer = optax.adam(1e-3)

    def logits_of(params, obs):
        return mlp(params, obs)[..., :n_actions]

    def policy(_, obs, params):
        logits = logits_of(params, obs)
        backward = jnp.zeros(logits.shape[:-1] + (args.dim,))
        return logits, {"forward_logits": logits, "backward_logits": backward}

    def rollout(key, params, n):
        return gfnx.utils.forward_rollout(
            rng_key=key,
            num_envs=n,
            policy_fn=policy,
            policy_params=params,
            env=env,
            env_params=env_params,
        )

    def masked(logits, state):
        return gfnx.utils.mask_logits(logits, env.get_invalid_mask(state, env_params))

    def taken(of_actions, action):
        return jnp.take_along_axis(of_actions, action[:, None], axis=-1)[:, 0]

    def log_pb(state):
        return -jnp.log((~env.get_invalid_backward_mask(state, env_params)).sum(-1))

    def state_of(cells):
        return env.get_init_state(len(cells)).replace(state=cells)

    def kept(memory, moves):
        """Puts valid transitions behind the last ones."""
        place = jnp.cumsum(~moves.pad) - 1 + memory["added"]
        place = jnp.where(moves.pad, CAPACITY, place % CAPACITY)
        new = [moves.state.state, moves.action, moves.log_gfn_reward]
        put = lambda name, values: memory[name].at[place].set(values, mode="drop")
        added = {"added": memory["added"] + (~moves.pad).sum()}
        return {name: put(name, values) for name, values in zip(KEPT, new)} | added

    def replayed_loss(params, target, drawn):
        cells, action, log_reward = (drawn[name] for name in KEPT)
        state, step = state_of(cells), jax.nn.one_hot(action, n_actions, dtype=cells.dtype)
        after = state_of(cells + step[:, : args.dim])
        obs, obs_after = env.get_obs(state, env_params), env.get_obs(after, env_params)
        value = tau * jax.nn.logsumexp(masked(logits_of(target, obs_after), after), axis=-1)
        goal = jnp.where(action == stop, log_reward, log_pb(after) + value)
        if args.alpha:
            log_pi = jax.nn.log_softmax(masked(logits_of(target, obs), state))
            goal += args.alpha * jnp.clip(tau * taken(log_pi, action), L0, 0)
        q = tau * taken(logits_of(params, obs), action)
        return optax.huber_loss(q, goal).mean()

    def current_loss(params, target, moves):
        out = mlp(params, moves.obs)
        log_pi = jax.nn.log_softmax(masked(out[:, :-1], moves.state))
        q = out[:, -1] + taken(log_pi, moves.action)
        goal = log_pb(moves.next_state) + mlp(target, moves.next_obs)[:, -1]
        goal = jnp.where(moves.done, moves.log_gfn_reward, goal)
        losses = jnp.where(moves.pad, 0, optax.huber_loss(q, goal))
        return (losses * jnp.where(moves.done, LEAF, 1)).sum() / (~moves.pad).sum()

    metric = ApproxDistributionMetricsModule(metrics=["tv"], env=env, buffer_size=200_000)
    memory = {
        "cells": jnp.zeros((CAPACITY, args.dim), jnp.int32),
        "action": jnp.zeros(CAPACITY, jnp.int32),
        "log_reward": jnp.zeros(CAPACITY),
        "added": jnp.zeros((), jnp.int32),
    }
    watched = None
    if published:
        watched = metric.init(jax.random.key(0), metric.InitArgs(env_params=env_params))
        memory = None

    def iteration(_, carry):
        key, i, params, target, state, memory, _, watched = carry
        key, sample, draw = jax.random.split(key, 3)
        data, info = rollout(sample, params, args.batch)
        moves = gfnx.utils.split_traj_to_transitions(data)
        if published:
            loss, batch = current_loss, moves
        else:
            memory = kept(memory, moves)
            filled = jnp.minimum(memory["added"], CAPACITY)
            place = jax.random.randint(draw, (DRAWN,), 0, filled)
            loss, batch = replayed_loss, {name: memory[name][place] for name in KEPT}

        def update(params, target, state):
            value, gradient = jax.value_and_grad(loss)(params, target, batch)
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            target = optax.incremental_update(params, target, TARGET_TAU)
            return params, target, state, value, optax.tree_utils.tree_l2_norm(gradient)

        if published:
            params, target, state, value, norm = update(params, target, state)
            seen = metric.UpdateArgs(states=info["final_env_state"])
            watched = metric.update(watched, rng_key=jax.random.key(0), args=seen)
            _, log_pb_of = gfnx.utils.forward_trajectory_log_probs(env, data, env_params)
            log_reward, entropy = info["log_gfn_reward"], info["entropy"]
            regularised = log_pb_of + log_reward + entropy
            report = i, value, norm, regularised.mean(), entropy.mean(), log_reward.mean()
            jax.debug.callback(lambda *values: [float(v) for v in values], *report, ordered=True)
        else:
            zero = jnp.zeros(())
            still = lambda params, target, state: (params, target, state, zero, zero)
            updated = jax.lax.cond(i >= FILL, update, still, params, target, state)
            params, target, state, value, _ = updated
        return key, i + 1, params, target, state, memory, value, watched

    @jax.jit
    def block(carry, n):
        return jax.lax.fori_loop(0, n, iteration, carry)

    start = jnp.zeros((), int)
    key, state = jax.random.PRNGKey(2), optimizer.init(params)
    carry = (key, start, params, params, state, memory, jnp.zeros(()), watched)
    jax.block_until_ready(block(carry, 1))
    first = time.perf_counter() - START
    begin = time.perf_counter()
    carry = jax.block_until_ready(block(carry, args.iterations))
    seconds = time.perf_counter() - begin
    result = {"rate": args.iterations / seconds, "first_s": first, "loss": float(carry[6])}
    if args.objects:
        # Total variation of a histogram of new objects from R / Z, and that of exact draws.
        key, exact = jax.random.split(jax.random.PRNGKey(3))
        _, info = jax.jit(rollout, static_argnums=2)(key, carry[2], args.objects)
        every = env.get_all_states(env_params)
        p = jax.nn.softmax(env.reward_module.log_reward(every, env_params))
        count = lambda at: jnp.bincount(at, length=len(p)) / args.objects
        of_target = count(jax.random.choice(exact, len(p), (args.objects,), p=p))
        index = info["final_env_state"].state @ args.side ** jnp.arange(args.dim)[::-1]
        of_policy = count(index)
        away = lambda of: float(abs(of - p).sum() / 2)
        result |= {"tv": away(of_policy), "tv_floor": away(of_target)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
