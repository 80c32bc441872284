// Classifies binary PPM pictures with a model file of clip-export. The model resizes and normalises them itself.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "answer.hpp"
#include "picture.hpp"
#include "spec.hpp"

namespace {

using nlohmann::ordered_json;

constexpr const char* kUsage = "usage: classify MODEL IMAGE.ppm... [--json]";
constexpr const char* kProvider = "CPUExecutionProvider";

// What the model says of one picture.
struct Reading {
  std::vector<float> numbers;
  std::optional<float> novelty;
};

Reading run(Ort::Session& session, const Spec& spec, Picture& picture) {
  const std::array<std::int64_t, 4> shape{1, picture.height, picture.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto image = Ort::Value::CreateTensor<std::uint8_t>(memory, picture.rgb.data(), picture.rgb.size(),
                                                            shape.data(), shape.size());
  const char* input = "image";
  const std::array<const char*, 2> names{spec.task == "regression" ? "values" : "probabilities", "novelty"};
  const std::size_t count = spec.novelty_threshold ? 2 : 1;
  const auto outputs = session.Run(Ort::RunOptions{}, &input, &image, 1, names.data(), count);
  const auto floats = [&](std::size_t index, std::size_t size) {
    const auto kind = outputs[index].GetTensorTypeAndShapeInfo();
    if (kind.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || kind.GetElementCount() != size) {
      throw std::runtime_error("the model file contradicts itself: its output " + std::string(names[index]) +
                               " is not what it says");
    }
    return outputs[index].GetTensorData<float>();
  };
  const float* numbers = floats(0, spec.labels.size());
  Reading reading{{numbers, numbers + spec.labels.size()}, std::nullopt};
  if (spec.novelty_threshold) reading.novelty = *floats(1, 1);
  return reading;
}

// Whether a picture is unlike the training images; what is no number is like nothing.
bool is_novel(const Spec& spec, const Reading& reading) {
  return reading.novelty && !(*reading.novelty <= *spec.novelty_threshold);
}

// The record that `clip-infer --format jsonl` prints, with all labels in `top`.
ordered_json record_of(const std::string& image, const Spec& spec, const std::vector<Score>& scores) {
  ordered_json record{{"image", image},          {"label", nullptr},      {"probability", nullptr},
                      {"top", ordered_json::array()}, {"provider", kProvider}, {"error", nullptr}};
  if (spec.task == "regression") {
    for (const auto& score : scores) record["values"][score.label] = score.number;
    return record;
  }
  for (const auto& score : scores) {
    record["top"].push_back({{"label", score.label}, {"probability", score.number}});
    if (!score.predicted || !record["label"].is_null()) continue;
    record["label"] = score.label;
    record["probability"] = score.number;
  }
  if (spec.task == "multi-label") {
    record["labels"] = ordered_json::array();
    for (const auto& label : spec.labels) {
      const auto is_it = [&](const Score& score) { return score.label == label && score.predicted; };
      if (std::any_of(scores.begin(), scores.end(), is_it)) record["labels"].push_back(label);
    }
  }
  return record;
}

// Labels and paths are somebody else's text: a terminal would obey the control characters in them.
std::string printable(std::string text) {
  std::replace_if(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

// The same, with what the file tells of the picture itself.
ordered_json record_of(const std::string& image, const Spec& spec, const Reading& reading) {
  const auto scores = answer(spec, reading.numbers);
  auto record = record_of(image, spec, scores);
  if (reading.novelty) {
    record["novelty"] = *reading.novelty;
    record["is_novel"] = is_novel(spec, reading);
  }
  if (spec.set_quantile) record["set"] = set_of(spec, scores);
  return record;
}

// Predicted labels first; a star where a threshold, and not the order, predicted them.
void print_table(const std::string& image, const Spec& spec, std::vector<Score> scores) {
  const bool by_threshold = spec.task == "multi-label" || !scores.front().predicted;
  std::stable_partition(scores.begin(), scores.end(), [](const Score& score) { return score.predicted; });
  std::printf("%s\n", printable(image).c_str());
  for (const auto& [label, number, predicted] : scores) {
    const auto name = printable(label);
    if (spec.task == "regression") {
      std::printf("%11.5g  %s\n", number, name.c_str());
    } else {
      std::printf("%10.2f%%  %s%s\n", 100 * number, name.c_str(), predicted && by_threshold ? "  (by its threshold)" : "");
    }
  }
}

// What action() returns; its errors begin with the path they are about.
template <typename Action>
auto naming(const std::string& path, Action action) {
  try {
    return action();
  } catch (const std::exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

bool classify(Ort::Session& session, const Spec& spec, const std::string& image, bool json) {
  try {
    const auto reading = naming(image, [&] {
      auto picture = read_ppm(image);
      return run(session, spec, picture);
    });
    if (json) {
      std::cout << record_of(image, spec, reading).dump() << '\n';
    } else {
      const auto scores = answer(spec, reading.numbers);
      print_table(image, spec, scores);
      const bool novel = is_novel(spec, reading);
      if (spec.set_quantile && !novel) {  // of images unlike those it was made by, a set promises nothing
        std::printf("    one of these should be right:");
        for (const auto& label : set_of(spec, scores)) std::printf(" %s", printable(label).c_str());
        std::printf("\n");
      }
      if (novel) std::printf("    unlike the training images (novelty %.4g)\n", *reading.novelty);
    }
    return true;
  } catch (const std::exception& error) {
    std::cerr << "classify: " << printable(error.what()) << '\n';
    return false;
  }
}

bool classify_all(const std::string& model, const std::vector<std::string>& images, bool json) {
  Ort::Env environment(ORT_LOGGING_LEVEL_FATAL, "classify");
  auto session = naming(model, [&] {
    return Ort::Session(environment, std::filesystem::path(model).c_str(), Ort::SessionOptions{});
  });
  const auto spec = naming(model, [&] { return read_spec(session); });
  bool good = true;
  for (const auto& image : images) good = classify(session, spec, image, json) && good;
  return good;
}

// ONNX Runtime 1.29 and later send usage data, unless this is set before the first Ort::Env.
void turn_telemetry_off() {
#ifdef _WIN32
  if (!std::getenv("ORT_DISABLE_TELEMETRY")) _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  turn_telemetry_off();
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool json = !arguments.empty() && arguments.back() == "--json";
  if (json) arguments.pop_back();
  const bool has_option = std::any_of(arguments.begin(), arguments.end(), [](auto& text) { return text[0] == '-'; });
  if (arguments.size() < 2 || has_option) {
    std::cerr << kUsage << '\n';
    return 2;
  }
  try {
    return classify_all(arguments[0], {arguments.begin() + 1, arguments.end()}, json) ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "classify: " << printable(error.what()) << '\n';
    return 1;
  }
}
