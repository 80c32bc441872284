// The spec that clip-export keeps in a model file, as docs/model-file.md describes it.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

constexpr const char* kSpecKey = "clip_toolkit";
constexpr const char* kSpecMajor = "1.";

struct Spec {
  std::string task;
  std::vector<std::string> labels;
  std::map<std::string, double> thresholds;
  std::optional<double> novelty_threshold;  // of files that tell how far a picture is from the training images
  std::optional<double> set_quantile;       // of files calibrated for sets of labels
};

// Refuses what this program lacks, rather than answer something else than the file means.
inline void check_kind(const nlohmann::json& spec) {
  if (spec.contains("tasks") && !spec.at("tasks").empty()) {
    auto heads = spec.at("name").get<std::string>();
    for (const auto& task : spec.at("tasks")) heads += ", " + task.at("name").get<std::string>();
    throw std::runtime_error("the file holds the heads " + heads +
                             ", and this program answers for one: use clip-infer or clip-serve");
  }
  const auto version = spec.at("version").get<std::string>();
  if (version.rfind(kSpecMajor, 0) != 0) {
    throw std::runtime_error("the file has format version " + version + ", this program reads 1.x");
  }
  const auto kind = spec.value("kind", "classifier");
  if (kind != "classifier") {
    throw std::runtime_error("the file holds a " + kind + " tower, and this program runs classifiers of pictures alone");
  }
  const auto input = spec.at("input").get<std::string>();
  if (input != "image") {
    throw std::runtime_error("the file takes " + input + ", not pictures: export it without --input " + input);
  }
  if (spec.contains("text") && !spec.at("text").is_null()) {
    throw std::runtime_error(
        "the file reads a text with each picture, and this program has no tokenizer: use the Node.js or browser example");
  }
}

inline Spec read_spec(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(kSpecKey, allocator);
  if (!text) throw std::runtime_error("an ONNX file, but not one of clip-export");
  const auto json = nlohmann::json::parse(text.get());
  check_kind(json);
  Spec spec{json.value("task", "single-label"), json.at("labels").get<std::vector<std::string>>(),
            json.value("thresholds", std::map<std::string, double>{}), std::nullopt, std::nullopt};
  if (json.contains("novelty")) spec.novelty_threshold = json.at("novelty").at("threshold").get<double>();
  if (json.contains("coverage")) spec.set_quantile = json.at("coverage").at("quantile").get<double>();
  if (spec.task != "single-label" && spec.task != "multi-label" && spec.task != "regression") {
    throw std::runtime_error("the file has the task " + spec.task +
                             ", this program knows single-label, multi-label and regression");
  }
  if (spec.task == "single-label" && !spec.thresholds.empty() && (spec.labels.size() != 2 || spec.thresholds.size() != 1)) {
    throw std::runtime_error("the model file contradicts itself: its threshold is not that of one of two labels");
  }
  return spec;
}
