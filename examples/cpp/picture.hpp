// Binary PPM pictures: the simplest format there is, so that the example needs no image library.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <istream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

constexpr std::int64_t kMaxPixels = 178956970;
constexpr std::int64_t kMaxAspect = 1000;

struct Picture {
  std::int64_t width;
  std::int64_t height;
  std::vector<std::uint8_t> rgb;
};

// The next number of a PPM header, in which comments run from # to the end of the line.
inline std::int64_t header_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  std::int64_t number = 0;
  if (!(file >> number) || number < 1) throw std::runtime_error("the PPM header is damaged");
  return number;
}

inline void check_shape(std::int64_t width, std::int64_t height) {
  const std::string shape = std::to_string(width) + "x" + std::to_string(height);
  if (width > kMaxPixels / height) throw std::runtime_error("the picture is too large: " + shape);
  const auto [shorter, longer] = std::minmax(width, height);
  if (longer > kMaxAspect * shorter) {
    throw std::runtime_error("the picture is " + shape + ": one side is over 1000 times the other");
  }
}

inline Picture read_ppm(const std::filesystem::path& path) {
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
