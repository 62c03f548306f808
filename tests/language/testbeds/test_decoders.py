"""Many small decoders as one batch: independent of each other, exact in their log-probabilities, able to learn."""

import torch

from paperworks.language.objectives.dpo import DPO
from paperworks.language.testbeds.decoder_learning import (
    advantages,
    by_setting,
    kl_of,
    leave_one_out_by_net,
    loss_by_setting,
    pair_logps,
    ppo_credit,
    ppo_update,
    repeated,
    summed_logps,
    token_logps,
    uniform_by_seed,
    whitened_by_net,
)
from paperworks.language.testbeds.decoders import (
    END,
    Adam,
    Decoders,
    Shape,
    fit_scores,
    imitate,
    response_mask,
    scores_of,
)

SHAPE = Shape(vocabulary=7, length=8, width=16, layers=2, heads=2)


def prompts(nets: int, rows: int = 6) -> torch.Tensor:
    return torch.randint(1, 7, (1, rows, 2), generator=torch.Generator().manual_seed(1)).expand(nets, -1, -1)


def drawn(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sampling_gives_the_log_probabilities_of_scoring():
    nets = Decoders.fresh(SHAPE, range(3))
    written = nets.sample(prompts(3), 6, drawn())
    logps, _ = nets.scored(written.tokens, 2)
    assert torch.allclose(torch.where(written.mask, logps, 0.0), written.logps, atol=1e-5)
    assert torch.equal(written.mask, response_mask(written.answers))


def test_nets_may_have_uniform_numbers_of_their_own():
    nets = Decoders.fresh(SHAPE, [0, 0])
    numbers = torch.rand(2, 6, 6, generator=drawn())
    apart = nets.sample(prompts(2), 6, numbers)
    assert not torch.equal(apart.tokens[0], apart.tokens[1])
    assert torch.equal(nets.take([1]).sample(prompts(1), 6, numbers[1:]).tokens[0], apart.tokens[1])
    both = nets.sample(prompts(2), 6, torch.rand(1, 6, 6, generator=drawn(4)).expand(2, -1, -1))
    assert torch.equal(both.tokens, nets.sample(prompts(2), 6, drawn(4)).tokens)


def test_the_distribution_sums_to_one_over_all_responses():
    nets = Decoders.fresh(Shape(vocabulary=3, length=4, width=16, heads=2), range(2))
    answers = torch.cartesian_prod(*[torch.arange(3)] * 2)
    answers = answers[~((answers[:, 0] == END) & (answers[:, 1] != END))]
    tokens = torch.cat([torch.ones(len(answers), 2, dtype=torch.long), answers], 1).expand(2, -1, -1)
    total = summed_logps(nets, tokens, 2).exp().sum(1)
    assert torch.allclose(total, torch.ones(2), atol=1e-5)


def test_a_net_is_the_same_alone_and_among_others():
    nets = Decoders.fresh(SHAPE, range(4))
    alone = nets.take([2])
    together, single = nets.sample(prompts(4), 6, drawn()), alone.sample(prompts(1), 6, drawn())
    assert torch.equal(together.tokens[2], single.tokens[0])
    several, one = nets.trainable(), alone.trainable()
    for trained, written in ((several, together), (one, single)):
        adam = Adam(trained, 1e-2)
        for _ in range(3):
            adam.step(-summed_logps(trained, written.tokens, 2).mean(1))
    for name, values in several.parameters.items():
        assert torch.allclose(values[2], one.parameters[name][0], atol=1e-5), name


def test_each_net_has_its_own_learning_rate():
    nets = Decoders.fresh(SHAPE, [0, 0])
    trained = nets.trainable()
    Adam(trained, by_setting(2, [0.0, 1e-2])).step(
        -summed_logps(trained, nets.sample(prompts(2), 6, drawn()).tokens, 2).sum(1)
    )
    assert torch.equal(trained.parameters["head"][0], nets.parameters["head"][0])
    assert not torch.equal(trained.parameters["head"][1], nets.parameters["head"][1])


def test_a_mixture_lies_between_its_ends():
    nets, other = Decoders.fresh(SHAPE, [0]), Decoders.fresh(SHAPE, [5])
    own = nets.sample(prompts(1), 6, drawn())
    assert torch.equal(nets.sample(prompts(1), 6, drawn(), mixed_with=other, share=0.0).tokens, own.tokens)
    whole = nets.sample(prompts(1), 6, drawn(), mixed_with=other, share=1.0)
    assert torch.equal(whole.tokens, other.sample(prompts(1), 6, drawn()).tokens)


def test_greedy_decoding_draws_nothing():
    nets = Decoders.fresh(SHAPE, [0])
    one, two = (nets.sample(prompts(1), 6, drawn(seed), temperature=0.0).tokens for seed in (1, 2))
    assert torch.equal(one, two)


def test_imitation_and_reward_models_learn():
    nets = Decoders.fresh(SHAPE, [0, 1])
    good = torch.tensor([1, 2, 3, 3, END, END, END, END]).expand(2, 4, -1)
    bad = torch.tensor([1, 2, 4, 4, 5, END, END, END]).expand(2, 4, -1)
    before, after = summed_logps(nets, good, 2), summed_logps(imitate(nets, lambda _: good, 2, steps=30), good, 2)
    assert bool((after > before + 1).all())
    judge = fit_scores(nets, lambda _: (good, bad), 2, steps=30)
    assert bool((scores_of(judge, good, 2) > scores_of(judge, bad, 2)).all())


def test_ppo_raises_a_reward():
    nets = Decoders.fresh(SHAPE, [0, 1])
    policy = nets.trainable()
    adam, draw, means = Adam(policy, 5e-3), drawn(), []
    for _ in range(25):
        written = policy.sample(prompts(2, 16), 6, draw)
        reward = ((written.answers == 3) & written.mask).sum(-1).float()
        ppo_update(policy, adam, written, ppo_credit(policy, written, repeated(reward, written.mask)))
        means.append(reward.mean(1))
    assert bool((torch.stack(means[-3:]).mean(0) > means[0] + 0.5).all())
    kl, _ = kl_of(policy, nets, prompts(2, 16), 6, draw)
    assert bool((kl > 0).all())
    assert torch.allclose(kl_of(nets, nets, prompts(2), 6, draw)[0], torch.zeros(2), atol=1e-6)


def test_credit_is_that_of_each_response():
    mask = torch.tensor([[[True, True, True], [True, False, False]]])
    reward = repeated(torch.tensor([[1.0, 2.0]]), mask)
    assert reward.tolist() == [[[0.0, 0.0, 1.0], [2.0, 0.0, 0.0]]]
    advantage, returns = advantages(reward, torch.zeros(1, 2, 3), mask, decay=1.0)
    assert advantage.tolist() == returns.tolist() == [[[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]]]
    whitened = whitened_by_net(advantage, mask)
    assert abs(float(whitened[mask].mean())) < 1e-6 and abs(float(whitened[mask].var(correction=0)) - 1) < 1e-4
    assert leave_one_out_by_net(torch.tensor([[1.0, 3.0, 5.0, 5.0]]), 2).tolist() == [[-2.0, 2.0, 0.0, 0.0]]


def test_scores_reach_the_library_flat():
    nets = Decoders.fresh(SHAPE, [0, 1])
    chosen, rejected = (nets.sample(prompts(2), 6, drawn(seed)).tokens for seed in (1, 2))
    known = summed_logps(nets, chosen, 2), summed_logps(nets, rejected, 2)
    pairs = pair_logps(nets, chosen, rejected, 2, known)
    assert torch.allclose(pairs.chosen.log_ratio, torch.zeros(12), atol=1e-5)
    reference, _ = nets.scored(chosen, 2)
    tokens = token_logps(nets, chosen, 2, reference)
    assert torch.allclose(tokens.summed(tokens.policy).view(2, 6), known[0], atol=1e-5)


def test_seeds_that_draw_for_themselves_write_what_they_would_write_alone():
    nets, draws = Decoders.fresh(SHAPE, [0, 1, 2, 3]), [7, 8]
    written = nets.sample(prompts(4), 6, uniform_by_seed([drawn(seed) for seed in draws], 4, 6, 6))
    for net in range(4):
        alone = nets.take([net]).sample(prompts(1), 6, drawn(draws[net % 2]))
        assert torch.equal(written.tokens[net], alone.tokens[0])
        assert torch.equal(written.mask[net], alone.mask[0])


def test_every_setting_has_its_own_objective():
    nets = Decoders.fresh(SHAPE, range(4))
    written = nets.sample(prompts(4), 6, drawn())
    chosen, rejected = written.tokens[:, :3], written.tokens[:, 3:]
    batch = pair_logps(nets, chosen, rejected, 2, (torch.zeros(4, 3), torch.zeros(4, 3)))
    losses = loss_by_setting(batch, [DPO(beta=0.1), DPO(beta=2.0)], 4)
    weak, strong = (DPO(beta=beta).loss(batch).view(4, 3).mean(1) for beta in (0.1, 2.0))
    assert torch.allclose(losses, torch.cat([weak[:2], strong[2:]]), atol=1e-6)
    assert not torch.allclose(weak, strong)
