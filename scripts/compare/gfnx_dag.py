"""Trains a GFlowNet on DAGs with gfnx (JAX): the peer's half of compare.py.

Uses the published package's environment, BGe score, data and rollout, and the whole loop runs inside
one compiled function. The objective is the modified detailed balance of its DAG baseline: Huber's
penalty, uniform P_B, P_F(stop) at the end of a transition by a target copy that is set every 1000
iterations, Adam 1e-4, without exploration.

With --style lean the policy is an MLP 4x256 on the adjacency matrix, as gfn's, and an iteration does
nothing else. With --style published the policy is a graph network of the architecture and sizes of
that baseline (one round of message passing and one attention over nodes, width 128, 4 heads; the
logit of an edge is a product of its ends), and an iteration also does what its script does: the
trajectories' rewards as an entropy-regularised problem, and a callback that reports the loss. Prints
one JSON object.
"""

import argparse
import json
import time

START = time.perf_counter()

import equinox as eqx
import gfnx
import jax
import jax.numpy as jnp
import jraph
import optax
from gfnx.reward.dag_likelihood import BGeScore
from gfnx.reward.dag_prior import UniformDAGPrior
from gfnx.utils.dag import generate_dataset

HIDDEN, LAYERS = 256, 4
WIDTH, HEADS = 128, 4
TARGET_EVERY = 1000


class Flat(eqx.Module):
    """An MLP on all cells of the adjacency matrix."""

    mlp: eqx.nn.MLP

    def __init__(self, nodes, key):
        self.mlp = eqx.nn.MLP(nodes**2, nodes**2 + 1, HIDDEN, LAYERS, key=key)

    def __call__(self, graphs):
        return jax.vmap(self.mlp)(graphs.reshape(len(graphs), -1).astype(jnp.float32))


class Graphs(eqx.Module):
    """A graph network with a padded list of edges, then attention over the nodes of each graph."""

    embed: list
    update: list
    norms: list
    project: eqx.nn.Linear
    attention: eqx.nn.MultiheadAttention
    senders: eqx.nn.MLP
    receivers: eqx.nn.MLP
    stop: eqx.nn.MLP

    def __init__(self, nodes, key):
        keys = iter(jax.random.split(key, 16))
        mlp = lambda n_in, n_out: eqx.nn.MLP(n_in * WIDTH, n_out, WIDTH, 1, key=next(keys))
        # Nodes, edges, the graph; each sees itself and the others.
        self.embed = [eqx.nn.Embedding(n, WIDTH, key=next(keys)) for n in (nodes, 1, 1)]
        self.update = [mlp(4, WIDTH), mlp(4, WIDTH), mlp(3, WIDTH)]
        self.norms = [eqx.nn.LayerNorm(WIDTH) for _ in range(5)]
        self.project = eqx.nn.Linear(WIDTH, 3 * WIDTH, key=next(keys))
        self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=next(keys))
        self.senders, self.receivers, self.stop = mlp(1, WIDTH), mlp(1, WIDTH), mlp(1, 1)

    def __call__(self, graphs):
        n, d = graphs.shape[:2]
        tuples = self.tuples(graphs)
        parts = [tuples.nodes, tuples.edges, tuples.globals]
        parts = [jax.vmap(embed)(part) for embed, part in zip(self.embed, parts)]
        tuples = tuples._replace(nodes=parts[0], edges=parts[1], globals=parts[2])
        node, edge, whole = [jraph.concatenated_args(jax.vmap(mlp)) for mlp in self.update]
        new = jraph.GraphNetwork(edge, node, whole)(tuples)
        news = [new.nodes, new.edges, new.globals]
        added = [jax.vmap(norm)(a + b) for norm, a, b in zip(self.norms, parts, news)]
        mixed = jax.vmap(self.project)(added[0])[: n * d].reshape(n, d, -1)
        nodes = jax.vmap(self.attention)(*jnp.split(mixed, 3, axis=-1)).reshape(n * d, -1)
        nodes, whole = jax.vmap(self.norms[3])(nodes), jax.vmap(self.norms[4])(added[2][:n])
        ends = [jax.vmap(mlp)(nodes).reshape(n, d, -1) for mlp in (self.senders, self.receivers)]
        edges = jnp.einsum("nik,njk->nij", *ends).reshape(n, -1)
        return jnp.concatenate([edges, jax.vmap(self.stop)(whole)], axis=-1)

    def tuples(self, graphs):
        """All graphs in one tuple; what is left of the list of edges joins a node of its own."""
        n, d = graphs.shape[:2]
        most = n * d * (d - 1) // 2
        graph, source, target = jnp.nonzero(graphs, size=most, fill_value=0)
        n_edges = graphs.sum((1, 2))
        real = jnp.arange(most) < n_edges.sum()
        place = lambda node: jnp.where(real, graph * d + node, n * d)
        return jraph.GraphsTuple(
            nodes=jnp.append(jnp.tile(jnp.arange(d), n), 0),
            edges=jnp.zeros(most, int),
            globals=jnp.zeros(n + 1, int),
            senders=place(source),
            receivers=place(target),
            n_node=jnp.full(n + 1, d).at[-1].set(1),
            n_edge=jnp.append(n_edges, most - n_edges.sum()),
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--style", choices=["lean", "published"], default="lean")
    args = parser.parse_args()

    score = BGeScore(jnp.array(generate_dataset(num_variables=args.nodes)))
    reward = gfnx.DAGRewardModule(prior=UniformDAGPrior(args.nodes), likelihood=score)
    env = gfnx.DAGEnvironment(reward, num_variables=args.nodes)
    env_params = env.init(jax.random.PRNGKey(0))
    network = Flat if args.style == "lean" else Graphs
    params, static = eqx.partition(network(args.nodes, jax.random.PRNGKey(1)), eqx.is_array)
    optimizer = optax.adam(1e-4)

    def logits_of(params, graphs):
        return eqx.combine(params, static)(graphs)

    def policy(_, graphs, params):
        logits = logits_of(params, graphs)
        return logits, {"forward_logits": logits, "backward_logits": jnp.zeros_like(logits)}

    def log_probs(params, graphs, state):
        invalid = env.get_invalid_mask(state, env_params)
        return jax.nn.log_softmax(gfnx.utils.mask_logits(logits_of(params, graphs), invalid))

    def loss(params, target, moves):
        before = log_probs(params, moves.obs, moves.state)
        after = log_probs(target, moves.next_obs, moves.next_state)
        log_pf = jnp.take_along_axis(before, moves.action[:, None], axis=-1)[:, 0]
        log_pb = -jnp.log((~env.get_invalid_backward_mask(moves.next_state, env_params)).sum(-1))
        gain = reward.delta_score(moves.state, moves.action, moves.next_state, env_params)
        residual = log_pf - log_pb + after[:, -1] - before[:, -1] - gain
        counts = ~(moves.done | moves.pad)
        return optax.huber_loss(jnp.where(counts, residual, 0.0)).sum() / counts.sum()

    def iteration(i, carry):
        key, params, target, state, _ = carry
        key, sample = jax.random.split(key)
        data, info = gfnx.utils.forward_rollout(
            rng_key=sample,
            num_envs=args.batch,
            policy_fn=policy,
            policy_params=params,
            env=env,
            env_params=env_params,
        )
        moves = gfnx.utils.split_traj_to_transitions(data)
        value, gradient = jax.value_and_grad(loss)(params, target, moves)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        due = i % TARGET_EVERY == 0
        target = jax.tree.map(lambda new, old: jnp.where(due, new, old), params, target)
        if args.style == "published":
            _, log_pb = gfnx.utils.forward_trajectory_log_probs(env, data, env_params)
            regularised = log_pb + info["log_gfn_reward"] + info["entropy"]
            report = i, value, regularised.mean(), info["entropy"].mean()
            jax.debug.callback(lambda *values: [float(v) for v in values], *report, ordered=True)
        return key, params, target, state, value

    @jax.jit
    def block(carry, n):
        return jax.lax.fori_loop(0, n, iteration, carry)

    carry = (jax.random.PRNGKey(2), params, params, optimizer.init(params), jnp.zeros(()))
    jax.block_until_ready(block(carry, 1))
    first = time.perf_counter() - START
    begin = time.perf_counter()
    carry = jax.block_until_ready(block(carry, args.iterations))
    seconds = time.perf_counter() - begin
    rate = args.iterations / seconds
    print(json.dumps({"rate": rate, "first_s": first, "loss": float(carry[4])}))


main()
