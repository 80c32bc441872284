// Classifies a binary PPM picture with a model file of clip-export. The model resizes and normalises it itself.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using nlohmann::ordered_json;

constexpr const char* kUsage = "usage: classify MODEL IMAGE.ppm [--json]";
constexpr const char* kSpecKey = "clip_toolkit";
constexpr const char* kSpecMajor = "1.";
constexpr const char* kProvider = "CPUExecutionProvider";
constexpr std::int64_t kMaxPixels = 178956970;
constexpr std::int64_t kMaxAspect = 1000;

struct Picture {
  std::int64_t width;
  std::int64_t height;
  std::vector<std::uint8_t> rgb;
};

struct Score {
  std::string label;
  float probability;
};

// The next number of a PPM header, in which comments run from # to the end of the line.
std::int64_t header_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  std::int64_t number = 0;
  if (!(file >> number) || number < 1) throw std::runtime_error("the PPM header is damaged");
  return number;
}

void check_shape(std::int64_t width, std::int64_t height) {
  const std::string shape = std::to_string(width) + "x" + std::to_string(height);
  if (width > kMaxPixels / height) throw std::runtime_error("the picture is too large: " + shape);
  const auto [shorter, longer] = std::minmax(width, height);
  if (longer > kMaxAspect * shorter) {
    throw std::runtime_error("the picture is " + shape + ": one side is over 1000 times the other");
  }
}

Picture read_ppm(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot be read");
  std::array<char, 2> magic{};
  if (!file.read(magic.data(), magic.size()) || magic != std::array{'P', '6'}) {
    throw std::runtime_error("expected a binary PPM picture (P6)");
  }
  Picture picture{header_number(file), header_number(file), {}};
  if (header_number(file) != 255) throw std::runtime_error("expected 8 bits per channel");
  file.get();
  check_shape(picture.width, picture.height);
  picture.rgb.resize(static_cast<std::size_t>(picture.width * picture.height * 3));
  if (!file.read(reinterpret_cast<char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()))) {
    throw std::runtime_error("the picture is cut short");
  }
  return picture;
}

std::vector<std::string> read_labels(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(kSpecKey, allocator);
  if (!text) throw std::runtime_error("an ONNX file, but not one of clip-export");
  const auto spec = ordered_json::parse(text.get());
  const auto version = spec.at("version").get<std::string>();
  if (version.rfind(kSpecMajor, 0) != 0) {
    throw std::runtime_error("the file has format version " + version + ", this program reads 1.x");
  }
  if (spec.at("input") != "image") throw std::runtime_error("the file does not take pictures");
  // A program that shows the most probable label would say something else than such a file means.
  if (spec.contains("text") && !spec.at("text").is_null()) {
    throw std::runtime_error("the file reads a text with each picture, and this program gives it none");
  }
  const auto task = spec.value("task", "single-label");
  if (task != "single-label" || !spec.value("thresholds", ordered_json::object()).empty()) {
    throw std::runtime_error("the file does not say the most probable label: see task in docs/model-file.md");
  }
  return spec.at("labels").get<std::vector<std::string>>();
}

std::vector<Score> classify(Ort::Session& session, const std::vector<std::string>& labels, Picture& picture) {
  const std::array<std::int64_t, 4> shape{1, picture.height, picture.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto image = Ort::Value::CreateTensor<std::uint8_t>(memory, picture.rgb.data(), picture.rgb.size(),
                                                            shape.data(), shape.size());
  const char* input = "image";
  const char* output = "probabilities";
  const auto outputs = session.Run(Ort::RunOptions{}, &input, &image, 1, &output, 1);
  const auto kind = outputs.front().GetTensorTypeAndShapeInfo();
  if (kind.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || kind.GetElementCount() != labels.size()) {
    throw std::runtime_error("the model file contradicts itself: its labels do not fit its output");
  }
  const float* probabilities = outputs.front().GetTensorData<float>();
  std::vector<Score> scores;
  for (std::size_t index = 0; index < labels.size(); ++index) scores.push_back({labels[index], probabilities[index]});
  std::stable_sort(scores.begin(), scores.end(),
                   [](const Score& a, const Score& b) { return a.probability > b.probability; });
  return scores;
}

void print_json(const std::string& image, const std::vector<Score>& scores) {
  auto top = ordered_json::array();
  for (const auto& [label, probability] : scores) top.push_back({{"label", label}, {"probability", probability}});
  const ordered_json record{{"image", image},       {"label", scores.front().label},
                            {"probability", scores.front().probability},
                            {"top", top},           {"provider", kProvider},
                            {"error", nullptr}};
  std::cout << record.dump() << '\n';
}

void print_table(const std::vector<Score>& scores) {
  for (const auto& [label, probability] : scores) std::printf("%10.2f%%  %s\n", 100 * probability, label.c_str());
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

void run(const std::string& model, const std::string& image, bool json) {
  Ort::Env environment(ORT_LOGGING_LEVEL_FATAL, "classify");
  auto session = naming(model, [&] {
    return Ort::Session(environment, std::filesystem::path(model).c_str(), Ort::SessionOptions{});
  });
  const auto labels = naming(model, [&] { return read_labels(session); });
  const auto scores = naming(image, [&] {
    auto picture = read_ppm(image);
    return classify(session, labels, picture);
  });
  json ? print_json(image, scores) : print_table(scores);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool json = arguments.size() == 3 && arguments[2] == "--json";
  if (arguments.size() != 2 && !json) {
    std::cerr << kUsage << '\n';
    return 2;
  }
  try {
    run(arguments[0], arguments[1], json);
  } catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
