#include "bench/layer_model.h"

#include <ggml.h>
#include <gguf.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace talaria::bench {
namespace {

// The smallest that Q4_K takes: its blocks have 256 weights.
constexpr LayerShape kSmall{"small", "nobody's", 256, 512, 4, 2};

std::string Scratch(const std::string& name) {
  return (std::filesystem::temp_directory_path() / (name + std::to_string(getpid()) + ".gguf"))
      .string();
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class LayerModelTest : public testing::TestWithParam<const char*> {};

// Read back with ggml's own reader: the tensors are inside of the file, and what their names say.
TEST_P(LayerModelTest, IsAFileOfOneLayer) {
  const std::string path = Scratch(std::string("layer-") + GetParam());
  ASSERT_TRUE(WriteLayerModel(kSmall, GetParam(), path).ok());
  const size_t bytes = std::filesystem::file_size(path);
  ggml_context* tensors = nullptr;
  gguf_context* gguf = gguf_init_from_file(path.c_str(), {false, &tensors});
  std::filesystem::remove(path);
  ASSERT_NE(gguf, nullptr);
  EXPECT_EQ(gguf_get_n_tensors(gguf), 12);
  const ggml_type type = std::string(GetParam()) == "q8_0" ? GGML_TYPE_Q8_0 : GGML_TYPE_Q4_K;
  uint64_t weights = 0, columns = 0;
  for (const char* name :
       {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    const ggml_tensor* t =
        ggml_get_tensor(tensors, ("blk.0." + std::string(name) + ".weight").c_str());
    ASSERT_NE(t, nullptr) << name;
    EXPECT_EQ(t->type, type) << name;
    weights += static_cast<uint64_t>(ggml_nelements(t));
    columns += static_cast<uint64_t>(t->ne[1]);
    std::vector<float> values(static_cast<size_t>(ggml_nelements(t)));
    ggml_get_type_traits(type)->to_float(t->data, values.data(), ggml_nelements(t));
    double squares = 0;
    for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
    // At least 32768 normal weights: the variance's relative error is below 0.8 % (one sigma), and
    // quantisation adds less than 1 %.
    EXPECT_NEAR(squares / static_cast<double>(values.size()) * static_cast<double>(t->ne[0]), 1,
                0.05)
        << name;
  }
  EXPECT_EQ(weights, Weights(kSmall));
  EXPECT_EQ(columns, Columns(kSmall));
  const auto last = gguf_get_n_tensors(gguf) - 1;
  EXPECT_EQ(bytes, gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, last) +
                       GGML_PAD(gguf_get_tensor_size(gguf, last), GGUF_DEFAULT_ALIGNMENT));
  gguf_free(gguf);
  ggml_free(tensors);
}

TEST_P(LayerModelTest, IsTheSameEveryTime) {
  const std::string one = Scratch("one"), two = Scratch("two");
  ASSERT_TRUE(WriteLayerModel(kSmall, GetParam(), one).ok());
  ASSERT_TRUE(WriteLayerModel(kSmall, GetParam(), two).ok());
  EXPECT_TRUE(Contents(one) == Contents(two));
  std::filesystem::remove(one);
  std::filesystem::remove(two);
}

INSTANTIATE_TEST_SUITE_P(Types, LayerModelTest, testing::Values("q8_0", "q4_k"));

TEST(LayerModelRefusalTest, UnknownTypesAndPlaces) {
  const Status type = WriteLayerModel(kSmall, "q3_k", Scratch("refused"));
  EXPECT_EQ(type.code(), Code::kInvalidArgument);
  EXPECT_THAT(type.message(), testing::HasSubstr("q3_k is neither q8_0 nor q4_k"));
  const Status place = WriteLayerModel(kSmall, "q8_0", "/no/such/folder/x.gguf");
  EXPECT_EQ(place.code(), Code::kIo);
  EXPECT_THAT(place.message(), testing::HasSubstr("/no/such/folder/x.gguf.part"));
}

TEST(LayerShapesTest, AreThoseOfTheModels) {
  ASSERT_EQ(LayerShapes().size(), 3u);
  EXPECT_EQ(Weights(LayerShapes()[1]), 218'103'808u);
  EXPECT_EQ(Columns(LayerShapes()[1]), 43'008u);
  EXPECT_EQ(Weights(LayerShapes()[2]), 855'638'016u);
  EXPECT_EQ(Columns(LayerShapes()[2]), 83'968u);
}

}  // namespace
}  // namespace talaria::bench
