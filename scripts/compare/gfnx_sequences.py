"""Trains a GFlowNet on sequences with gfnx (JAX): the peer's half of compare.py.

Uses the published package's environments, rewards, transformer and rollout; networks, loss and
optimiser are those of its baselines, and the whole loop runs inside one compiled function. The
objective is trajectory balance with Adam, without exploration, weight decay and dropout:

    qm9str   five of 11 blocks, added at either end: MLP 2x256 on one-hot symbols, learned P_B,
             Adam 5e-4, log Z at 0.05
    tfbind8  eight letters from left to right: the same; every state has one parent, so P_B = 1
    bitseq   120 bits in words of 8, filled in any order: the package's encoder, 3 layers, width 64,
             8 heads, feed-forward 64, one linear layer to the 256 words of each slot, uniform P_B,
             Adam 1e-3, log Z at 0.05

With --style lean an iteration does nothing else. With --style published it also does what that
package's scripts do: an entropy of the policy and the norm of the gradient, the buffers of the
package's metrics (for the two tables of rewards), and a callback that reports them.

The published MLPs have one more linear layer after the second hidden layer, with no activation
between the two; it is left out, as gfn has none. The package comes without its tables of rewards:
the tables here are random numbers, as speed does not depend on them. Prints one JSON object.
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


def random_table(kind):
    """The package's reward module `kind` with random values in place of its file."""

    class RandomTable(kind):
        def init(self, rng_key, dummy_state):
            return {"rewards": jax.random.uniform(rng_key, (self.nchar**self.max_length,), minval=0.1)}

    return RandomTable()


def mlp(env, n_out):
    sizes = [env.max_length * env.nchar, HIDDEN, HIDDEN, n_out]
    key, params = jax.random.PRNGKey(1), []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        key, a, b = jax.random.split(key, 3)
        bound = fan_in**-0.5
        weight = jax.random.uniform(a, (fan_in, fan_out), minval=-bound, maxval=bound)
        params.append((weight, jax.random.uniform(b, (fan_out,), minval=-bound, maxval=bound)))

    def apply(params, obs):
        # The first token is always the same; empty positions are all zeros.
        x = jax.nn.one_hot(obs[..., 1:], env.nchar).reshape(obs.shape[:-1] + (-1,))
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    return params, apply


def transformer(env, _):
    import equinox as eqx
    from gfnx.networks import Encoder

    a, b = jax.random.split(jax.random.PRNGKey(1))
    encoder = Encoder(
        vocab_size=env.ntoken,
        max_length=env.max_length + 1,
        embedding_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_layers=3,
        num_heads=8,
        dropout_rate=0.0,
        pad_id=-1,  # Empty positions are attended to.
        key=a,
    )
    head = eqx.nn.Linear(64, env.nchar, key=b)
    params, static = eqx.partition((encoder, head), eqx.is_array)

    def single(params, obs):
        encoder, head = eqx.combine(params, static)
        x = encoder(obs, jnp.arange(obs.shape[0]))["layers_out"][-1]
        return jax.vmap(head)(x[1:]).ravel()

    def apply(params, obs):
        logits = jax.vmap(single, (None, 0))(params, obs.reshape((-1, obs.shape[-1])))
        return logits.reshape(obs.shape[:-1] + (-1,))

    return params, apply


# Name: environment, network, learning rate, whether P_B is learned (else uniform).
TASKS = {
    "qm9str": (lambda: gfnx.QM9SmallEnvironment(random_table(gfnx.QM9SmallRewardModule)), mlp, 5e-4, True),
    "tfbind8": (lambda: gfnx.TFBind8Environment(random_table(gfnx.TFBind8RewardModule)), mlp, 5e-4, False),
    "bitseq": (lambda: gfnx.BitseqEnvironment(gfnx.BitseqRewardModule()), transformer, 1e-3, False),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--style", choices=["lean", "published"], default="lean")
    args = parser.parse_args()

    build, network, rate, learned = TASKS[args.task]
    env = build()
    env_params = env.init(jax.random.PRNGKey(0))
    n_forward, n_backward = env.action_space.n, env.backward_action_space.n
    net, apply = network(env, n_forward + n_backward if learned else n_forward)
    params = {"net": net, "log_z": jnp.zeros(())}
    optimizer = optax.multi_transform(
        {"net": optax.adam(rate), "log_z": optax.adam(0.05)}, {"net": "net", "log_z": "log_z"}
    )

    def policy(_, obs, net):
        return apply(net, obs)[..., :n_forward], {}

    def taken(logits, invalid, action):
        logits = gfnx.utils.mask_logits(logits, invalid)
        chosen = jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    def by_step(function, *trees):
        """Applies a function of the package to all steps of all trajectories."""
        flat = [jax.tree.map(lambda x: x.reshape((-1,) + x.shape[2:]), tree) for tree in trees]
        out = function(*flat, env_params)
        return out.reshape((args.batch, -1) + out.shape[1:])

    def loss(params, data):
        # All trajectories have the same length; the last step of the rollout is padding.
        start = jax.tree.map(lambda x: x[:, :-1], data.state)
        end = jax.tree.map(lambda x: x[:, 1:], data.state)
        action = data.action[:, :-1]
        logits = apply(params["net"], data.obs if learned else data.obs[:, :-1])
        forward = logits[:, : env.max_length, :n_forward]
        log_pf = taken(forward, by_step(env.get_invalid_mask, start), action)
        invalid = by_step(env.get_invalid_backward_mask, end)
        if learned:
            removal = by_step(env.get_backward_action, start, action, end)
            log_pb = taken(logits[:, 1:, n_forward:], invalid, removal)
        else:
            log_pb = -jnp.log((~invalid).sum(-1))
        residual = params["log_z"] + (log_pf - log_pb).sum(1) - data.log_gfn_reward.sum(1)
        return (residual**2).mean()

    watched = None
    if args.style == "published" and args.task != "bitseq":
        metric = ApproxDistributionMetricsModule(metrics=["tv"], env=env, buffer_size=200_000)
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
        if watched is not None:
            seen = metric.UpdateArgs(states=info["final_env_state"])
            watched = metric.update(watched, rng_key=jax.random.key(0), args=seen)
        if args.style == "published":
            report = i, value, optax.tree_utils.tree_l2_norm(gradient), info["entropy"].mean()
            jax.debug.callback(lambda *values: [float(v) for v in values], *report, ordered=True)
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


main()
