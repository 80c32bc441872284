// From a model's output to what it says of a picture: the rules of docs/model-file.md, for every task.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include "spec.hpp"

constexpr double kDefaultThreshold = 0.5;

struct Score {
  std::string label;
  float number;  // a probability, or a value of a regression
  bool predicted;
};

// In float64, as everywhere: the threshold is not rounded to the precision of the probability.
inline bool reaches(const Spec& spec, const std::string& label, double probability) {
  const auto threshold = spec.thresholds.find(label);
  return probability >= (threshold == spec.thresholds.end() ? kDefaultThreshold : threshold->second);
}

// Of two labels one may have a threshold: it is predicted from there on, and the other one below.
inline std::size_t predicted_of_one(const Spec& spec, const std::vector<float>& probabilities) {
  if (spec.thresholds.empty()) {
    return static_cast<std::size_t>(std::max_element(probabilities.begin(), probabilities.end()) - probabilities.begin());
  }
  const auto& label = spec.thresholds.begin()->first;
  const std::size_t chosen = spec.labels.at(0) == label ? 0 : 1;
  return reaches(spec, label, probabilities.at(chosen)) ? chosen : 1 - chosen;
}

// The scores of a picture: the values of a regression by name, or probabilities, the most probable label first.
inline std::vector<Score> answer(const Spec& spec, const std::vector<float>& numbers) {
  std::vector<Score> scores;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    scores.push_back({spec.labels[i], numbers[i], spec.task == "multi-label" && reaches(spec, spec.labels[i], numbers[i])});
  }
  if (spec.task == "regression") return scores;
  if (spec.task == "single-label") scores[predicted_of_one(spec, numbers)].predicted = true;
  std::stable_sort(scores.begin(), scores.end(), [](const Score& a, const Score& b) { return a.number > b.number; });
  return scores;
}

// The labels one of which should be right: by their probability, as long as those before them sum up to the quantile at
// most, the first one always. The scores are those of `answer`, of a file calibrated for it.
inline std::vector<std::string> set_of(const Spec& spec, const std::vector<Score>& scores) {
  std::vector<std::string> labels;
  double before = 0;
  for (const auto& score : scores) {
    if (before <= *spec.set_quantile) labels.push_back(score.label);
    before += score.number;
  }
  return labels;
}
